//! How the end of an attempt is written. The outcome was decided in `task::transition`; here it is
//! only applied, with one exception that the contract asks for: a task whose end somebody asked for
//! is not tried again.

use super::{
    board::{Hold, Word},
    book::{Book, millis},
};
use crate::{Finish, Finished, recent};
use hostel_sqlite::Fault;
use hostel_task::{Outcome, Ran, StateKind};
use rusqlite::params;

impl Book<'_> {
    pub fn finish(&mut self, ended: &[Finish]) -> Result<Vec<Finished>, Fault> {
        let now = self.clock.now();
        let mut answers = Vec::with_capacity(ended.len());
        for finish in ended {
            let Some(hold) = self.board.held(&finish.token).cloned() else {
                answers.push(Finished::Stale);
                continue;
            };
            answers.push(match self.end(finish, &hold, now) {
                Ok(()) => Finished::Applied,
                Err(fault) => {
                    self.mark_held(&finish.token.id, &hold, fault)?;
                    Finished::Corrupt
                }
            });
        }
        Ok(answers)
    }

    fn end(&mut self, finish: &Finish, hold: &Hold, now: i64) -> Result<(), Fault> {
        let (mut state, mut at, error) = match &finish.outcome {
            Outcome::Completed { .. } => (StateKind::Completed, now, None),
            Outcome::Failed { error } => (StateKind::Failed, now, Some(error)),
            Outcome::Cancelled => (StateKind::Cancelled, now, None),
            Outcome::Retry { after, error } | Outcome::Lost { after, error } => {
                let due = now.saturating_add(millis(*after));
                (StateKind::Pending, due, Some(error))
            }
            Outcome::Released => (StateKind::Pending, now, None),
        };
        if hold.cancel_asked && state == StateKind::Pending {
            (state, at) = (StateKind::Cancelled, now);
        }
        let terminal = i64::from(state.is_terminal());
        let (seq, kind, before) = (hold.seq, state as i64, hold.attempt.saturating_sub(1));
        let mut losses = hold.losses;
        match &finish.outcome {
            Outcome::Released => {
                let released = params![seq, kind, at, before, terminal];
                self.statements.release.execute(released)?;
            }
            Outcome::Lost { .. } => {
                losses += 1;
                let lost = params![seq, kind, at, before, terminal, error];
                self.statements.lose.execute(lost)?;
            }
            _ => {
                let ran = self.ran_words(finish.ran.as_ref())?;
                self.statements.finish.execute(params![
                    seq,
                    kind,
                    at,
                    hold.attempt,
                    terminal,
                    error,
                    ran.map(|[node, _, _]| node),
                    ran.map(|[_, plugin, _]| plugin),
                    ran.map(|[_, _, version]| version),
                ])?;
            }
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
            lane.wait((at, hold.seq), losses);
        }
        let id = &finish.token.id;
        self.moved(id, hold.lane, StateKind::Running, state)?;
        let before = self.recent.get(id);
        let same_attempt = before.filter(|before| before.attempt == hold.attempt);
        if let Some(ended) =
            same_attempt.and_then(|before| recent::ended(&before, finish, self.clock.shown(now)))
        {
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
