//! Translates between schedules on the wire and in the domain.

use crate::{
    proto::{distributed as wire, hostel::v1, millis},
    schedule::{GivenSchedule, Origin, ScheduleSpec, When},
    scheduler::schedules::ScheduleStatus,
    task::{Name, Priority, UnixMs},
};
use std::collections::HashMap;

/// Makes a schedule as it is given. It is checked later.
pub fn given(spec: v1::ScheduleSpec) -> GivenSchedule {
    // The number of a priority that does not exist is refused with the other faults.
    let priority = wire::Priority::try_from(spec.priority);
    let priority = priority.map_or_else(
        |_| spec.priority.to_string(),
        |known| Priority::from(known).to_string(),
    );
    GivenSchedule {
        name: spec.name,
        cron: spec.cron,
        time_zone: spec.time_zone,
        every_ms: spec.every_ms,
        task_type: spec.task_type,
        payload: spec.payload,
        metadata: spec.metadata.into_iter().collect(),
        group: spec.group,
        priority,
        node: spec.node,
        label: spec.label,
        overlap: spec.overlap,
        missed: spec.missed,
        jitter_ms: spec.jitter_ms,
        paused: spec.paused,
    }
}

/// A schedule as a whole.
pub fn schedule(status: ScheduleStatus) -> v1::Schedule {
    let (payload, metadata) = (
        status.schedule.spec.payload.clone(),
        status.schedule.spec.metadata.clone(),
    );
    let mut schedule = listed(status);
    if let Some(spec) = &mut schedule.spec {
        spec.payload = payload;
        spec.metadata = metadata.into_iter().collect();
    }
    schedule
}

/// A schedule without its payload and its metadata.
pub fn listed(ScheduleStatus { schedule, upcoming }: ScheduleStatus) -> v1::Schedule {
    let record = schedule.record;
    let origin = schedule.origin.as_str().to_owned();
    let nodes = match schedule.origin {
        Origin::Api => Vec::new(),
        Origin::Config(nodes) => nodes.iter().map(Name::to_string).collect(),
    };
    let ms = |time: Option<UnixMs>| time.map_or(0, |time| time.0);
    v1::Schedule {
        spec: Some(spec(schedule.spec)),
        origin,
        nodes,
        paused: record.paused,
        next_ms: upcoming.into_iter().map(|time| time.0).collect(),
        last_fired_ms: ms(record.last_fired),
        last_task_id: record.last_task.map(String::from).unwrap_or_default(),
        waiting_ms: ms(record.waiting),
        fired: record.fired,
        skipped: record.skipped,
    }
}

fn spec(spec: ScheduleSpec) -> v1::ScheduleSpec {
    let text = |name: Option<Name>| name.map(String::from).unwrap_or_default();
    let (cron, time_zone, every_ms) = match spec.when {
        When::Cron { pattern, zone } => (pattern, zone, 0),
        When::Every(interval) => (String::new(), String::new(), millis(interval)),
    };
    v1::ScheduleSpec {
        name: spec.name.to_string(),
        cron,
        time_zone,
        every_ms,
        task_type: spec.task_type.to_string(),
        payload: Default::default(),
        metadata: HashMap::new(),
        group: text(spec.group),
        priority: wire::Priority::from(spec.priority).into(),
        node: text(spec.node),
        label: text(spec.label),
        overlap: spec.overlap.to_string(),
        missed: spec.missed.to_string(),
        jitter_ms: millis(spec.jitter),
        paused: spec.paused,
    }
}
