//! How the end of an attempt is written. The outcome was decided in `task::transition`; here it is
//! only applied, with one exception that the contract asks for: a task whose end somebody asked for
//! is not tried again.

use super::{
    board::{Hold, Word},
    book::Book,
    row::ms,
};
use crate::{
    queue::{Finish, Finished, now, recent},
    sqlite::Fault,
    task::{Outcome, Ran, StateKind, UnixMs},
};
use rusqlite::params;

impl Book<'_> {
    pub fn finish(&mut self, ended: &[Finish]) -> Result<Vec<Finished>, Fault> {
        let now = now();
        let mut answers = Vec::with_capacity(ended.len());
        for finish in ended {
            let held = self.board.held(&finish.token).cloned();
            answers.push(match held {
                Some(hold) => {
                    self.end(finish, hold, now)?;
                    Finished::Applied
                }
                None => Finished::Stale,
            });
        }
        Ok(answers)
    }

    fn end(&mut self, finish: &Finish, hold: Hold, now: UnixMs) -> Result<(), Fault> {
        let (mut state, mut at, error) = match &finish.outcome {
            Outcome::Completed { .. } => (StateKind::Completed, now, None),
            Outcome::Failed { error } => (StateKind::Failed, now, Some(error)),
            Outcome::Cancelled => (StateKind::Cancelled, now, None),
            Outcome::Retry { after, error } => (StateKind::Pending, now.after(*after), Some(error)),
            Outcome::Released => (StateKind::Pending, now, None),
        };
        if hold.cancel_asked && state == StateKind::Pending {
            (state, at) = (StateKind::Cancelled, now);
        }
        let terminal = i64::from(state.is_terminal());
        if finish.outcome == Outcome::Released {
            let attempt = hold.attempt.saturating_sub(1);
            self.statements.release.execute(params![
                hold.seq,
                state as i64,
                ms(at),
                attempt,
                terminal
            ])?;
        } else {
            let ran = self.ran_words(finish.ran.as_ref())?;
            self.statements.finish.execute(params![
                hold.seq,
                state as i64,
                ms(at),
                hold.attempt,
                terminal,
                error,
                ran.map(|[node, _, _]| node),
                ran.map(|[_, plugin, _]| plugin),
                ran.map(|[_, _, version]| version),
            ])?;
        }
        if let Outcome::Completed { result } = &finish.outcome
            && !result.is_empty()
        {
            let result = params![hold.seq, &result[..]];
            self.statements.insert_result.execute(result)?;
        }
        self.board.running.remove(&finish.token.id);
        if state == StateKind::Pending {
            let lane = self.board.lane(hold.lane)?;
            lane.pending.insert((ms(at), hold.seq));
        }
        let id = &finish.token.id;
        self.moved(id, hold.lane, StateKind::Running, state)?;
        let before = self.recent.get(id);
        let same_attempt = before.filter(|before| before.attempt == hold.attempt);
        if let Some(ended) = same_attempt.and_then(|before| recent::ended(&before, finish, now)) {
            self.known(ended);
        }
        Ok(())
    }

    fn ran_words(&mut self, ran: Option<&Ran>) -> Result<Option<[Word; 3]>, Fault> {
        let Some(ran) = ran else {
            return Ok(None);
        };
        Ok(Some([
            self.word(ran.node.as_str())?,
            self.word(ran.plugin.as_str())?,
            self.word(&ran.plugin_version)?,
        ]))
    }
}
