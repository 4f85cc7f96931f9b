//! What operators do to tasks of the model, to several at once.

use super::Model;
use crate::conformance::helpers::*;

impl Model<'_> {
    /// Does one thing to some tasks, of which some may not exist or be the same.
    pub(super) async fn act(&mut self) {
        let action = self.any_action();
        let ids: Vec<Name> = (0..self.random.usize(1..5))
            .map(|_| self.any_id())
            .collect();
        let due_by = self.due_by();
        let expected: Vec<Acted> = ids
            .iter()
            .map(|id| self.expect(&action, id, due_by))
            .collect();
        let acted = self.queue.act(&action, &ids).await.unwrap();
        assert_eq!(acted, expected, "{action} {ids:?}");
        for id in &ids {
            self.compare(id).await;
        }
    }

    fn any_action(&mut self) -> Action {
        match self.random.u32(..10) {
            0..2 => Action::Cancel(None),
            2..4 => Action::Cancel(Some(format!("reason {}", self.random.u8(..)).into())),
            4..7 => Action::Requeue,
            7 => Action::Purge,
            8 => Action::SetPriority(Priority::ALL[self.random.usize(..3)]),
            _ => Action::RunNow,
        }
    }

    /// Changes the model as the action changes the task, and returns the answer to it.
    fn expect(&mut self, action: &Action, id: &Name, due_by: u64) -> Acted {
        let Some(known) = self.tasks.get_mut(id) else {
            return Acted::Unknown;
        };
        if !action.is_for(known.state) {
            return Acted::Refused(known.state);
        }
        match action {
            Action::Cancel(reason) if known.state == StateKind::Running => {
                if !known.cancel_requested {
                    known.cancel_requested = true;
                    known.cancel_reason = reason.as_deref().map(str::to_owned);
                }
                return Acted::Requested;
            }
            Action::Cancel(reason) => {
                known.state = StateKind::Cancelled;
                known.finishes += 1;
                if let Some(reason) = reason {
                    known.error = Some(reason.to_string());
                }
                self.free_key(id);
            }
            Action::Requeue => {
                known.state = StateKind::Pending;
                (known.attempt, known.finishes, known.losses) = (0, 0, 0);
                (known.error_class, known.overdue) = (None, false);
                if let Some(key) = known.key() {
                    self.keys.entry(key).or_insert_with(|| id.clone());
                }
            }
            Action::Purge => {
                self.tasks.remove(id);
            }
            Action::SetPriority(priority) => known.priority = *priority,
            // The time itself is the queue's, and is read from there.
            Action::RunNow => known.due = known.due.min(due_by),
        }
        Acted::Done
    }
}
