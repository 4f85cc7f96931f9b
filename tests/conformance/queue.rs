//! The helpers of the queue's conformance suite, for the tests of its backends.

pub use hostel::queue::conformance::{
    Case, LimitCase, MAX_OPEN_TASKS, ScheduleCase, cases, finish_one, limit_cases, limited, name,
    ordered_cases, request, schedule_cases, task, task_with, with_options,
};
