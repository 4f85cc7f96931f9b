//! `[schedule.NAME]`

use super::{
    super::{
        group::{self, Visibility, settings},
        setting::{flag, millis, name, text},
    },
    texts::Texts,
};
use bytes::Bytes;
use hostel_schedule::{
    GivenSchedule, MAX_INTERVAL, MAX_JITTER, MIN_INTERVAL, Missed, Overlap, ScheduleSpec,
};
use hostel_task::{Name, Priority, SubmissionLimits, UnixMs, Violations};
use std::{collections::BTreeMap, time::Duration};

const MIN_INTERVAL_MS: u64 = MIN_INTERVAL.as_millis() as u64;
const MAX_INTERVAL_MS: u64 = MAX_INTERVAL.as_millis() as u64;
const MAX_JITTER_MS: u64 = MAX_JITTER.as_millis() as u64;

settings! {
    /// Submits a task again and again; NAME is the name of the schedule. Each time has one task, with
    /// the id `schedule:NAME:TIME`, whatever number of nodes has the section. The schedule exists for as
    /// long as the configuration of a node has it: a node that starts, or is reloaded, without it
    /// withdraws it.
    struct Schedule {
        /// When: `minute hour day month weekday`, with a second before the minute if there are six, or
        /// @hourly, @daily, @weekly, @monthly or @yearly.
        cron: Option<String> = text(any).example("30 3 * * MON-FRI");

        /// The time zone of cron, by its IANA name; UTC by default. A fixed time that the clocks
        /// skip fires at the next that exists; one that comes twice fires once.
        time_zone: Option<String> = text(any).example("Europe/Berlin");

        /// Instead of cron: how long from one task to the next, in real time.
        every: Option<Duration> = millis(MIN_INTERVAL_MS..=MAX_INTERVAL_MS).example(900_000);

        /// The type of its tasks.
        task_type: String = text(any).example("report").required(String::new());

        /// The payload of its tasks, at most 64 KiB.
        payload: Option<String> = text(any).example("{}");

        /// The group of its tasks.
        group: Option<Name> = name("group").example("tenant-1");

        /// The priority of its tasks: "high", "normal" or "low".
        priority: Priority = text(|given| given.parse()).default(Priority::Normal);

        /// The only node that runs its tasks.
        node: Option<Name> = name("node").example("node-1");

        /// The label of the nodes that run its tasks.
        label: Option<Name> = name("label").example("gpu");

        /// What happens at a time when the task before is still open: "skip" submits none, "queue" one
        /// when that task has ended, "allow" one at once.
        overlap: Overlap = text(|given| given.parse()).default(Overlap::Skip);

        /// What happens to times that are more than a minute past because no node ran: "skip" submits
        /// none, "once" one task for the latest, "all" one for each of the latest 1000.
        missed: Missed = text(|given| given.parse()).default(Missed::Once);

        /// Each task is submitted later by up to this, by a part that its time determines.
        jitter: Duration = millis(0..=MAX_JITTER_MS).default(Duration::ZERO);

        /// Whether the schedule is paused.
        paused: bool = flag().default(false);

        /// The metadata of its tasks: any keys.
        metadata: BTreeMap<String, String> = Texts {
            example: ("department", "finance"),
            visibility: Visibility::Public,
        };
    }
}

impl Schedule {
    /// Returns the schedule `name`, or all its faults.
    pub fn spec(&self, name: &Name, limits: &SubmissionLimits) -> Result<ScheduleSpec, Violations> {
        let text = |name: &Option<Name>| name.as_ref().map(Name::to_string).unwrap_or_default();
        let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let given = GivenSchedule {
            name: name.to_string(),
            cron: self.cron.clone().unwrap_or_default(),
            time_zone: self.time_zone.clone().unwrap_or_default(),
            every_ms: self.every.map_or(0, ms),
            task_type: self.task_type.clone(),
            payload: self.payload.clone().map(Bytes::from).unwrap_or_default(),
            metadata: self.metadata.clone(),
            group: text(&self.group),
            priority: self.priority.to_string(),
            node: text(&self.node),
            label: text(&self.label),
            overlap: self.overlap.to_string(),
            missed: self.missed.to_string(),
            jitter_ms: ms(self.jitter),
            paused: self.paused,
        };
        // A pattern has no year: if it ever fires, it also fires after this.
        ScheduleSpec::new(given, limits, UnixMs(0))
    }
}

fn any(given: &str) -> Result<String, String> {
    Ok(given.to_owned())
}
