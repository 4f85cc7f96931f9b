//! `hostel:plugin/messaging` for guests: sends their messages through the `Messenger`, within the
//! limits of a call.

use super::{
    bindings::messaging::{Error, Host},
    capabilities::{Messenger, OutgoingMessage, SendError},
    store_state::StoreState,
};
use std::{sync::Arc, time::Duration};

impl Host for StoreState {
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
        // A call cannot use an answer that comes after its own deadline.
        let timeout = Duration::from_millis(timeout_ms).min(self.time_left());
        let answer = messenger.request(outgoing, timeout).await?;
        Ok(answer.into())
    }
}

impl StoreState {
    /// Checks and counts a message.
    fn send(
        &mut self,
        to: String,
        message_type: String,
        payload: Vec<u8>,
    ) -> Result<(Arc<dyn Messenger>, OutgoingMessage), Error> {
        self.take_message().map_err(|max| {
            Error::Refused(format!(
                "this call has sent {max} messages, and no more are allowed \
                 (plugins.sandbox.max_messages)"
            ))
        })?;
        let granted = self.granted.as_deref();
        let granted =
            granted.and_then(|granted| Some((granted, granted.capabilities.messenger.clone()?)));
        let (granted, messenger) = granted.ok_or_else(|| {
            Error::Refused("a plugin cannot send messages while it describes itself".into())
        })?;
        let outgoing = OutgoingMessage {
            from: granted.plugin.clone(),
            by_component: self.is_component(),
            to,
            message_type,
            payload: payload.into(),
        };
        Ok((messenger, outgoing))
    }
}

impl From<SendError> for Error {
    fn from(error: SendError) -> Self {
        match error {
            SendError::Undeliverable(why) => Self::Undeliverable(why),
            SendError::Failed(why) => Self::Failed(why),
            SendError::Timeout(why) => Self::Timeout(why),
            SendError::Refused(why) => Self::Refused(why),
        }
    }
}
