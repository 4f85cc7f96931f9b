//! The `Component` trait, and the type-erased form in which the SDK keeps a component.

use crate::{Answer, Input, Message, Result};

/// A component: one long-lived instance on each node that has the plugin, addressed by the plugin's
/// name. It handles one message at a time and keeps its state in `&mut self`.
///
/// An `Err` from [`on_message`](Self::on_message) is sent to the sender as an answer, and the
/// instance continues. A panic or a timeout ends the instance: the sender gets an error, and the node
/// creates a new instance with [`start`](Self::start). Save state that must survive with
/// [`kv`](crate::kv) before `on_message` returns.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a component",
    label = "does not implement `Component`",
    note = "`component = Type` in `plugin!` takes a type with `impl Component for Type`"
)]
pub trait Component: Sized + 'static {
    /// The topics that the component subscribes to besides its own name. A message to a topic is
    /// delivered to every subscriber, on every node.
    const TOPICS: &'static [&'static str] = &[];

    /// The type that payloads are decoded to. A payload that cannot be decoded is answered with an
    /// error, without a call of `on_message`.
    type In: Input;

    /// The type of an answer: an [`Output`](crate::Output), an `Option` of one, or `()` for none.
    type Out: Answer;

    /// Creates the instance. After an error or a panic the node retries later; tasks of the same
    /// plugin continue.
    fn start() -> Result<Self>;

    /// Handles one message.
    fn on_message(&mut self, payload: Self::In, message: &Message) -> Result<Self::Out>;

    /// Handles an answer to a message that this plugin published, on the node where it was published.
    /// Only an answer that a client sends arrives on the node of that client. Answers are separate from
    /// `on_message` because the receiver chose their payload type. The default drops them. The answer
    /// to a [`request`](crate::messaging::request) is returned by that function instead.
    fn on_answer(&mut self, _payload: Vec<u8>, _message: &Message) -> Result<()> {
        Ok(())
    }

    /// Stops the component. Called when the node stops, the plugin is removed, or a newer version takes
    /// over, but not after a panic. Usually the newer version has already started by then, so it is too
    /// late to save state here. Only where there is no memory for both does the old version stop first.
    fn stop(&mut self) -> Result<()> {
        Ok(())
    }
}

/// The component type of a plugin, which can start instances.
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

/// A started component whose payloads are bytes.
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
