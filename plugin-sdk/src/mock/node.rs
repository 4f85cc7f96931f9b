//! The node that a running plugin finds itself in: what its calls to `config`, `kv`, `messaging`
//! and the log reach. It belongs to the thread, because the functions that authors call take no
//! host, and tests run side by side.

use super::kv::Stores;
use super::{LogLine, Published};
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
    pub listeners: RefCell<HashMap<String, Rc<Listener>>>,
    /// Borrowed while the component is at work.
    component: RefCell<Option<Box<dyn Instance>>>,
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
            listeners: RefCell::default(),
            component: RefCell::default(),
            messages: Cell::default(),
        }
    }

    /// Runs the author's code in this node. What was around it before is back afterwards, after a
    /// panic too.
    pub fn inside<T>(self: &Rc<Self>, run: impl FnOnce() -> T) -> T {
        struct Back(Option<Rc<Node>>);
        impl Drop for Back {
            fn drop(&mut self) {
                CURRENT.set(self.0.take());
            }
        }
        logger::install();
        let _back = Back(CURRENT.replace(Some(self.clone())));
        run()
    }

    /// Starts the component unless it runs.
    pub fn start(self: &Rc<Self>) -> Result<()> {
        let mut component = self.component.borrow_mut();
        if component.is_none() {
            *component = Some(self.inside(|| self.plugin.start())?);
        }
        Ok(())
    }

    /// Ends the instance without a word, as a panic would.
    pub fn forget(&self) {
        drop(self.component.take());
    }

    pub fn stop(self: &Rc<Self>) -> Result<()> {
        let component = self.component.take();
        self.inside(|| component.map_or(Ok(()), |mut component| component.end()))
    }

    /// `None` while the component is at work, since it handles one message after the other.
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
        // Taken out, so that a panic ends it and the next message starts another.
        let mut instance = component.take()?;
        let answer = self.inside(|| instance.receive(payload, message));
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

/// The node around the code that runs, if a `MockHost` runs it.
pub(super) fn current() -> Option<Rc<Node>> {
    CURRENT.with_borrow(Clone::clone)
}

pub(crate) fn config(key: &str) -> Option<String> {
    current()?.config.borrow().get(key).cloned()
}

/// What is logged outside of a node is nobody's.
pub(crate) fn capture(level: log::Level, target: &str, message: String) {
    if let Some(node) = current() {
        node.logs.borrow_mut().push(LogLine {
            level,
            target: target.to_owned(),
            message,
        });
    }
}

pub(super) const NO_HOST: &str = "no MockHost runs this";
