//! Leases on their way to a caller who may have gone. Who asked for work and was cancelled before
//! the answer came has not run anything: the tasks go back at once and the attempt is not counted.

use super::{
    operation::{Asked, Safety},
    writer::Message,
};
use crate::{Finish, Leased};
use hostel_task::Outcome;
use std::convert::identity;
use tokio::sync::{mpsc::WeakSender, oneshot};

/// Gives its tasks back when it is dropped before they were taken.
pub(super) struct Handed {
    leased: Vec<Leased>,
    writer: WeakSender<Message>,
}

impl Handed {
    pub fn new(leased: Vec<Leased>, writer: WeakSender<Message>) -> Self {
        Self { leased, writer }
    }

    pub fn take(mut self) -> Vec<Leased> {
        std::mem::take(&mut self.leased)
    }
}

impl Drop for Handed {
    fn drop(&mut self) {
        if self.leased.is_empty() {
            return;
        }
        let released: Vec<Finish> = self
            .leased
            .drain(..)
            .map(|leased| Finish {
                token: leased.token,
                outcome: Outcome::Released,
                ran: None,
            })
            .collect();
        // Nobody waits for this answer. Should there be no room, the leases run out by themselves.
        let (reply, _) = oneshot::channel();
        let operation = Box::new(Asked {
            demand: Safety::Process.into(),
            run: move |book: &mut super::book::Book<'_>| book.finish(&released),
            seal: identity,
            answer: None,
            reply,
        });
        if let Some(writer) = self.writer.upgrade() {
            let _ = writer.try_send(Message::Do(operation));
        }
    }
}
