//! What the conformance suites of the engines have in common: the type of their cases. A suite itself lives
//! in the crate of its trait.

use std::pin::Pin;

/// Runs a case on a subject.
pub type Run<S> = fn(S) -> Pin<Box<dyn Future<Output = ()> + Send>>;

/// One rule of a contract, to be held by a subject of type `S`, such as `Arc<dyn Trait>`.
#[derive(Debug)]
pub struct Case<S> {
    name: &'static str,
    run: Run<S>,
}

impl<S> Clone for Case<S> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<S> Copy for Case<S> {}

impl<S> Case<S> {
    /// Makes a case, which panics if the subject breaks the contract.
    pub const fn new(name: &'static str, run: Run<S>) -> Self {
        Self { name, run }
    }

    /// The name of the case.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Opens a subject and runs the case on it.
    pub async fn run<F>(&self, open: impl FnOnce() -> F)
    where
        F: Future<Output = S>,
    {
        (self.run)(open().await).await;
    }
}
