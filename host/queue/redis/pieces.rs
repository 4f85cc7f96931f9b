//! A batch divided into what one script can take, and the answers put together again. Calls nothing.

use super::core::Core;
use crate::Error;
use hostel_task::TaskId;

/// What one script is given, in tasks and in bytes. Lua could take some thousands of tasks.
pub(super) const MAX_TASKS: usize = 500;
pub(super) const MAX_BYTES: usize = 8 << 20;

/// A shard, and the places of what it is asked in the batch.
pub(super) type Piece = (usize, Vec<usize>);

/// Each shard's pieces are in the order of the batch.
pub(super) fn pieces<T>(
    core: &Core,
    items: &[T],
    id: impl Fn(&T) -> &TaskId,
    size: impl Fn(&T) -> usize,
) -> Vec<Piece> {
    let mut pieces = Vec::new();
    // Each shard's last piece, and what it weighs.
    let mut last = vec![(Vec::new(), 0); core.tags.len()];
    for (place, item) in items.iter().enumerate() {
        let shard = core.shard_of(id(item));
        let (piece, bytes) = &mut last[shard];
        let more = size(item);
        if piece.len() == MAX_TASKS || (*bytes + more > MAX_BYTES && !piece.is_empty()) {
            pieces.push((shard, std::mem::take(piece)));
            *bytes = 0;
        }
        piece.push(place);
        *bytes += more;
    }
    let last = last.into_iter().map(|(piece, _)| piece).enumerate();
    pieces.extend(last.filter(|(_, piece)| !piece.is_empty()));
    pieces
}

/// The answers of all pieces, each where its question was. What a piece that failed was asked is answered
/// with `unknown`; `Err` when every piece failed.
pub(super) fn gathered_of_working<A: Clone>(
    core: &Core,
    what: &str,
    all: usize,
    answers: Vec<(Piece, Result<Vec<A>, Error>)>,
    unknown: A,
) -> Result<Vec<A>, Error> {
    let mut gathered = vec![unknown; all];
    let answers = answers.into_iter().map(|((shard, places), answers)| {
        let answers = answers.map(|answers| places.into_iter().zip(answers));
        (shard, answers)
    });
    for (place, answer) in core.working(what, answers)?.into_iter().flatten() {
        gathered[place] = answer;
    }
    Ok(gathered)
}

/// The answers of all pieces, each where its question was; `Corrupt` when one is missing.
pub(super) fn gathered<A>(all: usize, answers: Vec<Vec<(usize, A)>>) -> Result<Vec<A>, Error> {
    let mut answers: Vec<(usize, A)> = answers.into_iter().flatten().collect();
    answers.sort_unstable_by_key(|&(place, _)| place);
    match answers.len() == all {
        true => Ok(answers.into_iter().map(|(_, answer)| answer).collect()),
        false => Err(Error::Corrupt("a script left a question unanswered".into())),
    }
}
