//! `hostel:plugin/messaging`: what guests send, within the limits of a call. Where it goes is for
//! whoever implements `Messenger`.

use super::{
    bindings::messaging::{Error, Host},
    guest::Guest,
    outside::{Messenger, NotSent, Outgoing},
};
use std::{sync::Arc, time::Duration};

impl Host for Guest {
    async fn publish(
        &mut self,
        to: String,
        message_type: String,
        payload: Vec<u8>,
    ) -> Result<u32, Error> {
        let (messenger, outgoing) = self.send(to, message_type, payload)?;
        let receivers = messenger.publish(outgoing).await?;
        Ok(u32::try_from(receivers).unwrap_or(u32::MAX))
    }

    async fn request(
        &mut self,
        to: String,
        message_type: String,
        payload: Vec<u8>,
        timeout_ms: u64,
    ) -> Result<Vec<u8>, Error> {
        let (messenger, outgoing) = self.send(to, message_type, payload)?;
        // Beyond its own end a call could not use an answer.
        let timeout = Duration::from_millis(timeout_ms).min(self.time_left());
        let answer = messenger.request(outgoing, timeout).await?;
        Ok(answer.into())
    }
}

impl Guest {
    /// What every message has to pass.
    fn send(
        &mut self,
        to: String,
        message_type: String,
        payload: Vec<u8>,
    ) -> Result<(Arc<dyn Messenger>, Outgoing), Error> {
        self.take_message().map_err(|max| {
            Error::Refused(format!(
                "this call has sent {max} messages, and no more are allowed \
                 (plugins.sandbox.max_messages)"
            ))
        })?;
        let granted = self.granted.as_deref();
        let granted =
            granted.and_then(|granted| Some((granted, granted.outside.messenger.clone()?)));
        let (granted, messenger) = granted.ok_or_else(|| {
            Error::Refused("a plugin cannot send messages while it describes itself".into())
        })?;
        let outgoing = Outgoing {
            from: granted.plugin.clone(),
            by_component: self.is_component(),
            to,
            message_type,
            payload: payload.into(),
        };
        Ok((messenger, outgoing))
    }
}

impl From<NotSent> for Error {
    fn from(error: NotSent) -> Self {
        match error {
            NotSent::Undeliverable(why) => Self::Undeliverable(why),
            NotSent::Failed(why) => Self::Failed(why),
            NotSent::Timeout(why) => Self::Timeout(why),
            NotSent::Refused(why) => Self::Refused(why),
        }
    }
}
