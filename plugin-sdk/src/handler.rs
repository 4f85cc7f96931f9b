//! Which functions can run a task. How one is named and bounded is in `task_type.rs`.

use crate::Task;

/// A function that runs a task: `Fn(In) -> Out` or `Fn(In, &Task) -> Out`, where `In` is an
/// [`Input`](crate::Input) and `Out` an [`Output`](crate::Output), most often a
/// [`Result`](crate::Result). `Shape` tells the two apart for the compiler and never has to be
/// named.
// What `In` and `Out` have to be is a bound of `task` and not of the implementations here, so that
// the compiler names the one that does not fit.
#[diagnostic::on_unimplemented(
    message = "the arguments of `{Self}` are not those of a handler",
    label = "not a handler",
    note = "a handler is `fn(In) -> Out` or `fn(In, &Task) -> Out`: it takes the payload, owned, and \
            after that nothing or `&Task`"
)]
pub trait Handler<Shape> {
    /// What the payload is decoded to.
    type In;
    /// What is encoded to the result.
    type Out;

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
