//! The node that a running plugin calls through `config`, `kv`, `messaging` and the log. It is a
//! thread-local, because these functions have no host parameter and tests run in parallel.

use super::kv::Stores;
use super::{LogLine, Progress, Published};
use crate::component::Instance;
use crate::{Message, Plugin, Result, logger, messaging};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;

pub(super) type Listener = dyn Fn(&Published) -> Result<Vec<u8>, messaging::Error>;

pub(super) struct Node {
    pub plugin: Plugin,
    pub config: RefCell<HashMap<String, String>>,
    pub logs: RefCell<Vec<LogLine>>,
    pub stores: Stores,
    pub published: RefCell<Vec<Published>>,
    pub progress: RefCell<Vec<Progress>>,
    /// After how many calls of `is_cancelled` a task is cancelled, if ever.
    pub cancel_after: Cell<Option<u32>>,
    /// How often the running task has called it.
    pub cancel_checks: Cell<u32>,
    pub listeners: RefCell<HashMap<String, Rc<Listener>>>,
    /// Borrowed while the component handles a message.
    component: RefCell<Option<Box<dyn Instance>>>,
    /// Set while code of the component runs.
    in_component: Cell<bool>,
    messages: Cell<u64>,
}

impl Node {
    pub fn new(plugin: Plugin) -> Self {
        Self {
            plugin,
            config: RefCell::default(),
            logs: RefCell::default(),
            stores: Stores::default(),
            published: RefCell::default(),
            progress: RefCell::default(),
            cancel_after: Cell::default(),
            cancel_checks: Cell::default(),
            listeners: RefCell::default(),
            component: RefCell::default(),
            in_component: Cell::default(),
            messages: Cell::default(),
        }
    }

    /// Runs the plugin's code in this node and restores the previous node afterwards, also after a
    /// panic.
    pub fn enter<T>(self: &Rc<Self>, run: impl FnOnce() -> T) -> T {
        struct Restore(Option<Rc<Node>>);
        impl Drop for Restore {
            fn drop(&mut self) {
                CURRENT.set(self.0.take());
            }
        }
        logger::install();
        let _restore = Restore(CURRENT.replace(Some(self.clone())));
        run()
    }

    /// Runs code of the component in this node.
    fn enter_component<T>(self: &Rc<Self>, run: impl FnOnce() -> T) -> T {
        struct Restore<'n>(&'n Cell<bool>, bool);
        impl Drop for Restore<'_> {
            fn drop(&mut self) {
                self.0.set(self.1);
            }
        }
        let _restore = Restore(&self.in_component, self.in_component.replace(true));
        self.enter(run)
    }

    /// Whether code of the component runs, and not of a task.
    pub fn is_in_component(&self) -> bool {
        self.in_component.get()
    }

    /// Answers a task that asks, and counts the call.
    pub fn is_cancelled(&self) -> bool {
        let checks = self.cancel_checks.get();
        self.cancel_checks.set(checks.saturating_add(1));
        self.cancel_after.get().is_some_and(|after| checks >= after)
    }

    /// Starts the component if it is not running.
    pub fn start(self: &Rc<Self>) -> Result<()> {
        let mut component = self.component.borrow_mut();
        if component.is_none() {
            *component = Some(self.enter_component(|| self.plugin.start())?);
        }
        Ok(())
    }

    /// Drops the instance without a call of `stop`, as a panic does.
    pub fn drop_component(&self) {
        drop(self.component.take());
    }

    pub fn stop(self: &Rc<Self>) -> Result<()> {
        let component = self.component.take();
        self.enter_component(|| component.map_or(Ok(()), |mut component| component.end()))
    }

    /// Delivers a message to the component. Returns `None` while the component handles another.
    pub fn receive(
        self: &Rc<Self>,
        payload: Vec<u8>,
        message: &Message,
    ) -> Option<Result<Option<Vec<u8>>>> {
        drop(self.component.try_borrow_mut().ok()?);
        if let Err(error) = self.start() {
            return Some(Err(error));
        }
        let mut component = self.component.try_borrow_mut().ok()?;
        // The instance is taken out so that a panic drops it and the next message starts a new one.
        let mut instance = component.take()?;
        let answer = self.enter_component(|| instance.receive(payload, message));
        *component = Some(instance);
        Some(answer)
    }

    pub fn next_message_id(&self) -> String {
        self.messages.set(self.messages.get() + 1);
        format!("mock-message-{}", self.messages.get())
    }
}

thread_local! {
    static CURRENT: RefCell<Option<Rc<Node>>> = const { RefCell::new(None) };
}

/// Returns the node of the running code, if a `MockHost` runs it.
pub(super) fn current() -> Option<Rc<Node>> {
    CURRENT.with_borrow(Clone::clone)
}

pub(crate) fn config(key: &str) -> Option<String> {
    current()?.config.borrow().get(key).cloned()
}

/// Records a log line of the running node. Lines that are logged outside a node are dropped.
pub(crate) fn capture(level: log::Level, target: &str, message: String) {
    if let Some(node) = current() {
        node.logs.borrow_mut().push(LogLine {
            level,
            target: target.to_owned(),
            message,
        });
    }
}

pub(super) const NO_HOST: &str = "this code is not run by a MockHost";
