//! What a component is to its author, and how the SDK holds one whose type it does not know.

use crate::{Answer, Input, Message, Result};

/// A long-lived part of the node: one instance on each node that has the plugin, addressed by the
/// plugin's name, that handles one message after the other with its state at hand.
///
/// An `Err` from [`on_message`](Self::on_message) is an answer that says what went wrong, and the
/// instance goes on. A panic, or taking too long, ends the instance: the sender is told, and the
/// node makes it anew with [`start`](Self::start). So what must last is saved with
/// [`kv`](crate::kv) before `on_message` returns.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no component",
    label = "does not implement `Component`",
    note = "`component = Type` in `plugin!` takes a type with `impl Component for Type`"
)]
pub trait Component: Sized + 'static {
    /// What it listens to besides its own name. Several plugins, and every node's instance, may
    /// listen to one topic; each then gets the message.
    const TOPICS: &'static [&'static str] = &[];

    /// What payloads are decoded to. One that does not decode is answered with an error, and
    /// `on_message` does not see it.
    type In: Input;

    /// What is answered: an [`Output`](crate::Output), an `Option` of one, or `()` for none.
    type Out: Answer;

    /// Makes the instance. After an error or a panic the node tries again later; tasks of the same
    /// plugin go on.
    fn start() -> Result<Self>;

    /// Handles one message.
    fn on_message(&mut self, payload: Self::In, message: &Message) -> Result<Self::Out>;

    /// Handles what somebody answered to a message that this plugin published. Answers come here
    /// and not to `on_message`, because their payload is another's; without this they are dropped.
    /// The answer to a [`request`](crate::messaging::request) is what that returns.
    fn on_answer(&mut self, _payload: Vec<u8>, _message: &Message) -> Result<()> {
        Ok(())
    }

    /// Called when the node stops, the plugin goes away or a newer version has taken over; not
    /// after a panic. The newer version has started by then, so this is no place to save.
    fn stop(&mut self) -> Result<()> {
        Ok(())
    }
}

/// A plugin's component before it is started.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Declared {
    pub topics: &'static [&'static str],
    pub start: fn() -> Result<Box<dyn Instance>>,
}

impl Declared {
    pub fn of<C: Component>() -> Self {
        Self {
            topics: C::TOPICS,
            start: || Ok(Box::new(C::start()?)),
        }
    }
}

/// A started component, from bytes to bytes.
pub(crate) trait Instance {
    fn receive(&mut self, payload: Vec<u8>, message: &Message) -> Result<Option<Vec<u8>>>;
    fn end(&mut self) -> Result<()>;
}

impl<C: Component> Instance for C {
    fn receive(&mut self, payload: Vec<u8>, message: &Message) -> Result<Option<Vec<u8>>> {
        if message.in_reply_to().is_some() {
            self.on_answer(payload, message)?;
            return Ok(None);
        }
        let payload = C::In::decode(payload)?;
        self.on_message(payload, message)?.encode_answer()
    }

    fn end(&mut self) -> Result<()> {
        self.stop()
    }
}
