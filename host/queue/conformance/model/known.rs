//! A task of the model, and what random submissions ask for.

use crate::conformance::helpers::*;
use fastrand::Rng;

/// The groups that tasks have.
pub(super) const GROUPS: [&str; 3] = ["g1", "g2", "g3"];
const TAGS: [&str; 3] = ["red", "green", "blue"];

/// A time that no run of the model reaches, from now on or back.
const FAR: Duration = HOUR;

/// A task of the model. Due times come from the queue's clock, so they are read from the queue when the
/// task becomes pending.
#[derive(Debug, Clone)]
pub(super) struct Known {
    pub number: usize,
    pub task_type: &'static str,
    pub payload: Vec<u8>,
    pub options: TaskOptions,
    pub state: StateKind,
    pub due: u64,
    pub attempt: u32,
    pub finishes: u32,
    pub error: Option<String>,
    pub error_class: Option<ErrorClass>,
    pub fence: Option<u64>,
    pub losses: u32,
    pub cancel_requested: bool,
    pub progress: Option<Progress>,
    /// The reason of the cancellation that was requested.
    pub cancel_reason: Option<String>,
    /// The priority now; that of the options is what was submitted.
    pub priority: Priority,
    pub result: Vec<u8>,
    /// The task has to begin by a time that has passed.
    pub overdue: bool,
    /// How many attempts have ended, those before a requeue included.
    pub attempts: usize,
    /// The finish that was applied last.
    pub applied: Option<(LeaseToken, Outcome)>,
}

impl Known {
    /// A task as it is after its submission.
    pub fn new(
        number: usize,
        task_type: &'static str,
        payload: Vec<u8>,
        options: TaskOptions,
    ) -> Self {
        Self {
            number,
            task_type,
            payload,
            state: StateKind::Pending,
            due: 0,
            attempt: 0,
            finishes: 0,
            error: None,
            error_class: None,
            fence: None,
            losses: 0,
            cancel_requested: false,
            progress: None,
            cancel_reason: None,
            priority: options.priority,
            result: Vec::new(),
            overdue: options.start_by == Some(PAST),
            attempts: 0,
            applied: None,
            options,
        }
    }

    /// The options as they are read.
    pub fn current_options(&self) -> TaskOptions {
        TaskOptions {
            priority: self.priority,
            ..self.options.clone()
        }
    }

    /// The unique key, with the type that it belongs to.
    pub fn key(&self) -> Option<(&'static str, Name)> {
        let unique = self.options.unique.as_ref()?;
        Some((self.task_type, unique.key.clone()))
    }

    /// Whether the task gives its unique key back when it ends.
    pub fn frees_key(&self) -> bool {
        let unique = self.options.unique.as_ref();
        unique.is_some_and(|unique| unique.time.is_none())
    }

    /// Whether a purge of tasks of any age deletes it.
    pub fn can_be_purged(&self) -> bool {
        self.state.is_terminal() && self.options.result_ttl.is_none()
    }

    pub fn expires(&self) -> bool {
        self.state == StateKind::Pending && self.overdue
    }

    pub fn matches(&self, filter: &Filter) -> bool {
        let is_type = |task_type: &Name| task_type.as_str() == self.task_type;
        filter.state.is_none_or(|state| state == self.state)
            && filter.task_type.as_ref().is_none_or(is_type)
            && (filter.group.is_none() || filter.group == self.options.group)
            && filter
                .tag
                .as_ref()
                .is_none_or(|tag| self.options.tags.contains(tag))
    }

    /// Compares a task that was read or listed with the model's.
    pub fn assert_same(&self, found: &Task) {
        assert_eq!(found.task_type.as_str(), self.task_type);
        let options = found.options.as_deref().cloned().unwrap_or_default();
        assert_eq!(options, self.current_options(), "{found:?}");
        assert_eq!(found.state.kind(), self.state, "{found:?} {self:?}");
        assert_eq!(found.attempt, self.attempt, "{found:?} {self:?}");
        assert_eq!(found.finishes, self.finishes, "{found:?} {self:?}");
        assert_eq!(found.losses, self.losses, "{found:?} {self:?}");
        assert_eq!(found.error_class, self.error_class, "{found:?} {self:?}");
        assert_eq!(found.progress, self.progress, "{found:?} {self:?}");
    }
}

const PAST: UnixMs = UnixMs(1);

/// Options that ask for nothing, or for some of all that there is. Times are over or far away.
pub(super) fn any_options(random: &mut Rng) -> TaskOptions {
    let mut options = TaskOptions::default();
    if random.bool() {
        return options;
    }
    if random.bool() {
        options.priority = Priority::ALL[random.usize(..3)];
    }
    options.group = random.bool().then(|| any_group(random));
    if random.bool() {
        options.tags = (0..2).map(|_| any_tag(random)).collect();
    }
    options.unique = (random.u8(..4) == 0).then(|| any_key(random));
    match random.u8(..8) {
        0 => options.start = Start::After(FAR),
        1 => options.start_by = Some(PAST),
        2 => options.result_ttl = Some(FAR),
        3 => options.max_attempts = Some(3),
        _ => {}
    }
    options
}

pub(super) fn any_group(random: &mut Rng) -> Name {
    name(GROUPS[random.usize(..GROUPS.len())])
}

pub(super) fn any_tag(random: &mut Rng) -> Name {
    name(TAGS[random.usize(..TAGS.len())])
}

/// New progress of an attempt, or none.
pub(super) fn any_progress(random: &mut Rng) -> Option<Progress> {
    let (done, total) = (random.u64(..100), random.u64(..100));
    let note = format!("{done} of {total}");
    random.bool().then(|| Progress::new(done, total, &note))
}

/// Whether a task keeps a key beyond its end depends on the key alone.
fn any_key(random: &mut Rng) -> Unique {
    let lasting = random.bool();
    Unique {
        key: name(if lasting { "lasting" } else { "open" }),
        time: lasting.then_some(FAR),
    }
}
