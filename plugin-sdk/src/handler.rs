//! The `Handler` trait: functions that can run a task. Names and defaults are in `task_type.rs`.

use crate::Task;

/// A function that runs a task: `Fn(In) -> Out` or `Fn(In, &Task) -> Out`, where `In` is an
/// [`Input`](crate::Input) and `Out` an [`Output`](crate::Output), most often a
/// [`Result`](crate::Result). `Shape` lets the compiler distinguish the two forms; it is inferred.
// The bounds of `In` and `Out` are on `task` and not on the implementations here, so that the
// compiler's error names the type that does not satisfy them.
#[diagnostic::on_unimplemented(
    message = "the arguments of `{Self}` are not those of a handler",
    label = "not a handler",
    note = "a handler is `fn(In) -> Out` or `fn(In, &Task) -> Out`: it takes the payload, owned, and \
            after that nothing or `&Task`"
)]
pub trait Handler<Shape> {
    /// The type that the payload is decoded to.
    type In;
    /// The type that is encoded as the result.
    type Out;

    /// Runs one attempt.
    fn call(&self, payload: Self::In, task: &Task) -> Self::Out;
}

impl<F, In, Out> Handler<fn(In) -> Out> for F
where
    F: Fn(In) -> Out,
{
    type In = In;
    type Out = Out;

    fn call(&self, payload: In, _: &Task) -> Out {
        self(payload)
    }
}

impl<F, In, Out> Handler<fn(In, &Task) -> Out> for F
where
    F: Fn(In, &Task) -> Out,
{
    type In = In;
    type Out = Out;

    fn call(&self, payload: In, task: &Task) -> Out {
        self(payload, task)
    }
}
