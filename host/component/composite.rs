//! Several components as one: started in order, stopped in reverse, and rolled back if one of them
//! cannot start. All parts of a node are started and stopped by this.

use crate::lifecycle::Component;
use anyhow::Context;
use async_trait::async_trait;
use parking_lot::Mutex;
use std::{sync::Arc, time::Duration};

/// A component made of components.
pub struct Composite {
    id: String,
    children: Mutex<Vec<Child>>,
    /// Held while children are started or stopped, so that only one call does either.
    changing: tokio::sync::Mutex<()>,
}

#[derive(Clone)]
struct Child {
    component: Arc<dyn Component>,
    /// How long each of `start` and `stop` may take.
    deadline: Duration,
    started: bool,
}

impl Composite {
    /// Makes a component without children.
    pub fn new(id: impl Into<String>) -> Self {
        Self {
            id: id.into(),
            children: Mutex::default(),
            changing: tokio::sync::Mutex::default(),
        }
    }

    /// Adds a child after the existing ones, to be started with the whole. Fails if another child has
    /// its id.
    pub fn add(&self, component: Arc<dyn Component>, deadline: Duration) -> anyhow::Result<()> {
        let mut children = self.children.lock();
        let id = component.get_id();
        let taken = children.iter().any(|child| child.component.get_id() == id);
        anyhow::ensure!(
            !taken,
            "there is a component {id} already: give this one another id"
        );
        children.push(Child {
            component,
            deadline,
            started: false,
        });
        Ok(())
    }

    /// Adds a child to a running whole: starts it at once, and removes it again if it cannot start.
    pub async fn join(
        &self,
        component: Arc<dyn Component>,
        deadline: Duration,
    ) -> anyhow::Result<()> {
        let _alone = self.changing.lock().await;
        self.add(component.clone(), deadline)?;
        let is_it = |child: &Child| Arc::ptr_eq(&child.component, &component);
        let index = self
            .children
            .lock()
            .iter()
            .position(is_it)
            .unwrap_or_default();
        let Err(error) = self.start_child(index).await else {
            return Ok(());
        };
        if let Err(also) = self.stop_child(index).await {
            tracing::warn!("during the rollback of a failed start: {also}");
        }
        self.children.lock().retain(|child| !is_it(child));
        Err(error)
    }

    fn child(&self, index: usize) -> Option<Child> {
        self.children.lock().get(index).cloned()
    }

    fn mark(&self, index: usize, started: bool) {
        if let Some(child) = self.children.lock().get_mut(index) {
            child.started = started;
        }
    }

    fn len(&self) -> usize {
        self.children.lock().len()
    }

    async fn start_children(&self) -> anyhow::Result<()> {
        for index in 0..self.len() {
            self.start_child(index).await?;
        }
        Ok(())
    }

    async fn start_child(&self, index: usize) -> anyhow::Result<()> {
        let Some(child) = self.child(index).filter(|child| !child.started) else {
            return Ok(());
        };
        let id = child.component.get_id();
        tracing::debug!(component = id, "starting");
        // Marked before the start: if it times out or is cancelled, the child may have begun something
        // and is stopped with the others.
        self.mark(index, true);
        let started = tokio::time::timeout(child.deadline, child.component.start()).await;
        if matches!(started, Ok(Err(_))) {
            self.mark(index, false);
        }
        started
            .map_err(|_| anyhow::anyhow!("not started within {:?}", child.deadline))
            .flatten()
            .with_context(|| format!("component {id} cannot start"))
    }

    /// Stops the started children in reverse order, and goes on past those that fail.
    async fn stop_children(&self) -> anyhow::Result<()> {
        let mut failed = Vec::new();
        for index in (0..self.len()).rev() {
            failed.extend(self.stop_child(index).await.err());
        }
        if failed.is_empty() {
            return Ok(());
        }
        anyhow::bail!("components that did not stop well: {}", failed.join("; "))
    }

    async fn stop_child(&self, index: usize) -> Result<(), String> {
        let Some(child) = self.child(index).filter(|child| child.started) else {
            return Ok(());
        };
        let id = child.component.get_id();
        tracing::debug!(component = id, "stopping");
        let stopped = tokio::time::timeout(child.deadline, child.component.stop()).await;
        self.mark(index, false);
        match stopped {
            Ok(stopped) => stopped.map_err(|error| format!("{id}: {error:#}")),
            Err(_) => Err(format!("{id}: not stopped within {:?}", child.deadline)),
        }
    }
}

#[async_trait]
impl Component for Composite {
    async fn start(&self) -> anyhow::Result<()> {
        let _alone = self.changing.lock().await;
        let Err(error) = self.start_children().await else {
            return Ok(());
        };
        if let Err(also) = self.stop_children().await {
            tracing::warn!("during the rollback of a failed start: {also:#}");
        }
        Err(error)
    }

    async fn stop(&self) -> anyhow::Result<()> {
        let _alone = self.changing.lock().await;
        self.stop_children().await
    }

    fn get_id(&self) -> &str {
        &self.id
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Part {
        id: &'static str,
        log: Arc<Mutex<Vec<String>>>,
        fails: bool,
        hangs: bool,
    }

    #[async_trait]
    impl Component for Part {
        async fn start(&self) -> anyhow::Result<()> {
            anyhow::ensure!(!self.fails, "no");
            self.log.lock().push(format!("+{}", self.id));
            Ok(())
        }

        async fn stop(&self) -> anyhow::Result<()> {
            if self.hangs {
                std::future::pending::<()>().await;
            }
            self.log.lock().push(format!("-{}", self.id));
            Ok(())
        }

        fn get_id(&self) -> &str {
            self.id
        }
    }

    fn part(id: &'static str, log: &Arc<Mutex<Vec<String>>>) -> Part {
        Part {
            id,
            log: log.clone(),
            fails: false,
            hangs: false,
        }
    }

    #[tokio::test]
    async fn starts_in_order_and_stops_in_reverse() {
        let log = Arc::default();
        let whole = Composite::new("whole");
        for id in ["a", "b", "c"] {
            whole
                .add(Arc::new(part(id, &log)), Duration::from_secs(5))
                .unwrap();
        }
        whole.start().await.unwrap();
        whole.stop().await.unwrap();
        assert_eq!(*log.lock(), ["+a", "+b", "+c", "-c", "-b", "-a"]);
    }

    #[tokio::test]
    async fn a_failed_start_stops_the_children_that_started() {
        let log = Arc::default();
        let whole = Composite::new("whole");
        whole
            .add(Arc::new(part("a", &log)), Duration::from_secs(5))
            .unwrap();
        let fails = Part {
            fails: true,
            ..part("b", &log)
        };
        whole.add(Arc::new(fails), Duration::from_secs(5)).unwrap();
        let error = format!("{:#}", whole.start().await.unwrap_err());
        assert_eq!(error, "component b cannot start: no");
        assert_eq!(*log.lock(), ["+a", "-a"]);
    }

    #[tokio::test]
    async fn a_child_that_joins_starts_at_once_and_alone() {
        let log = Arc::default();
        let whole = Composite::new("whole");
        let soon = Duration::from_secs(5);
        whole.add(Arc::new(part("a", &log)), soon).unwrap();
        whole.start().await.unwrap();
        let again = whole.join(Arc::new(part("a", &log)), soon).await;
        assert!(again.unwrap_err().to_string().contains("another id"));
        let fails = Part {
            fails: true,
            ..part("b", &log)
        };
        assert!(whole.join(Arc::new(fails), soon).await.is_err());
        whole.join(Arc::new(part("b", &log)), soon).await.unwrap();
        whole.stop().await.unwrap();
        assert_eq!(*log.lock(), ["+a", "+b", "-b", "-a"]);
    }

    /// Logs its stop, and never ends its start.
    struct Endless(Arc<Mutex<Vec<String>>>);

    #[async_trait]
    impl Component for Endless {
        async fn start(&self) -> anyhow::Result<()> {
            std::future::pending().await
        }

        async fn stop(&self) -> anyhow::Result<()> {
            self.0.lock().push("-endless".into());
            Ok(())
        }

        fn get_id(&self) -> &str {
            "endless"
        }
    }

    #[tokio::test]
    async fn a_cancelled_start_is_rolled_back_by_stop() {
        let log = Arc::default();
        let whole = Composite::new("whole");
        let long = Duration::from_secs(600);
        whole.add(Arc::new(part("a", &log)), long).unwrap();
        whole.add(Arc::new(Endless(log.clone())), long).unwrap();
        let soon = Duration::from_millis(10);
        assert!(tokio::time::timeout(soon, whole.start()).await.is_err());
        whole.stop().await.unwrap();
        assert_eq!(*log.lock(), ["+a", "-endless", "-a"]);
    }

    #[tokio::test]
    async fn a_child_that_hangs_delays_the_others_by_its_deadline_only() {
        let log = Arc::default();
        let whole = Composite::new("whole");
        whole
            .add(Arc::new(part("a", &log)), Duration::from_secs(5))
            .unwrap();
        let hangs = Part {
            hangs: true,
            ..part("b", &log)
        };
        whole
            .add(Arc::new(hangs), Duration::from_millis(10))
            .unwrap();
        whole.start().await.unwrap();
        let error = whole.stop().await.unwrap_err().to_string();
        assert!(error.contains("b: not stopped within 10ms"), "{error}");
        assert_eq!(*log.lock(), ["+a", "+b", "-a"]);
    }
}
