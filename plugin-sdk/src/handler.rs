//! Which functions can run a task. How one is named and bounded is in `task_type.rs`.

use crate::{Input, Output, Result, Task};

/// A function that runs a task: `Fn(In) -> Out` or `Fn(In, &Task) -> Out`, where `In` is an
/// [`Input`] and `Out` an [`Output`], most often a [`Result`]. `Shape` tells the two apart for the
/// compiler and never has to be named.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot run a task",
    label = "not a handler",
    note = "a handler is `fn(In) -> Out` or `fn(In, &Task) -> Out`",
    note = "`In` is `Vec<u8>`, `String`, `Json<T>` or `()`, and `T` implements `Deserialize`",
    note = "`Out` is one of these or a `Result` of it, and `T` implements `Serialize`"
)]
pub trait Handler<Shape> {
    /// Decodes the payload, runs the function and encodes what it returns.
    fn run(&self, payload: Vec<u8>, task: &Task) -> Result<Vec<u8>>;
}

impl<F, In, Out> Handler<fn(In) -> Out> for F
where
    F: Fn(In) -> Out,
    In: Input,
    Out: Output,
{
    fn run(&self, payload: Vec<u8>, _: &Task) -> Result<Vec<u8>> {
        self(In::decode(payload)?).encode()
    }
}

impl<F, In, Out> Handler<fn(In, &Task) -> Out> for F
where
    F: Fn(In, &Task) -> Out,
    In: Input,
    Out: Output,
{
    fn run(&self, payload: Vec<u8>, task: &Task) -> Result<Vec<u8>> {
        self(In::decode(payload)?, task).encode()
    }
}
