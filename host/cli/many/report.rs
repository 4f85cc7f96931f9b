//! What `hostel submit --many` prints of each line, what it counts, and how it ends.

use super::reader::Line;
use crate::{
    cli::{
        error::CliError,
        json::task_with_result_json,
        output::{Progress, print_json_line, print_line, print_note},
    },
    proto::{
        distributed::TaskStatus,
        hostel::v1::{SubmitManyResponse, TaskRefused, submit_many_response::Event},
    },
};
use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Value, json};
use std::{collections::HashMap, io};
use tonic::{Code, Status};

/// How many lines became what.
#[derive(Default)]
struct Counts {
    accepted: u64,
    existing: u64,
    refused: u64,
    invalid: u64,
    completed: u64,
    failed: u64,
    cancelled: u64,
    unread: u64,
}

/// The report of a run.
pub struct Report {
    /// Whether to print what became of each line as JSON.
    json: bool,
    /// Whether to print the ends.
    wait: bool,
    counts: Counts,
    progress: Progress,
    /// The numbers of the lines whose tasks are under way, by position.
    lines: HashMap<u64, u64>,
    next_position: u64,
    /// Why the file could not be read to its end.
    unreadable: Option<io::Error>,
    /// Why stdout cannot be written.
    unwritable: Option<io::Error>,
}

impl Report {
    pub fn new(json: bool, wait: bool, progress: Progress) -> Self {
        Self {
            json,
            wait,
            counts: Counts::default(),
            progress,
            lines: HashMap::new(),
            next_position: 0,
            unreadable: None,
            unwritable: None,
        }
    }

    /// Whether going on is of no use, because stdout cannot be written.
    pub fn is_over(&self) -> bool {
        self.unwritable.is_some()
    }

    /// Takes note of a line whose task is submitted next, or of what is wrong with it.
    pub fn line(&mut self, line: &Line) {
        let number = line.number;
        match &line.task {
            Ok(_) => {
                self.lines.insert(self.next_position, number);
                self.next_position += 1;
            }
            Err(faults) => {
                self.counts.invalid += 1;
                if self.json {
                    let event = json!({ "event": "invalid", "line": number, "faults": faults });
                    self.print(&event);
                } else {
                    self.note(&format!("line {number} is invalid: {}", faults.join("; ")));
                }
            }
        }
        self.progress.read(line.end);
    }

    /// Takes note that the file cannot be read further.
    pub fn unreadable(&mut self, error: io::Error) {
        self.unreadable = Some(error);
    }

    /// Takes note of a response.
    pub fn response(&mut self, response: SubmitManyResponse) {
        let SubmitManyResponse {
            position,
            task_id,
            event,
        } = response;
        let line = self.lines.get(&position).copied().unwrap_or_default();
        let is_last = match event {
            Some(Event::Accepted(accepted)) => {
                let (count, name) = if accepted.existing {
                    (&mut self.counts.existing, "existing")
                } else {
                    (&mut self.counts.accepted, "accepted")
                };
                *count += 1;
                if self.json {
                    let durability = accepted.durability;
                    self.print(&json!({
                        "event": name,
                        "line": line,
                        "task_id": task_id,
                        "durability": durability,
                    }));
                }
                !self.wait
            }
            Some(Event::Refused(refused)) => {
                self.refused(line, &task_id, refused);
                true
            }
            Some(Event::Ended(status)) => {
                self.ended(line, &status);
                true
            }
            Some(Event::Unread(unread)) => {
                self.counts.unread += 1;
                self.print(&json!({
                    "event": "unread",
                    "line": line,
                    "task_id": task_id,
                    "code": code(unread.code),
                    "message": unread.message,
                }));
                true
            }
            None => false,
        };
        if is_last {
            self.lines.remove(&position);
        }
        self.progress.show(|| self.counts.text(self.wait));
    }

    fn refused(&mut self, line: u64, task_id: &str, refused: TaskRefused) {
        self.counts.refused += 1;
        let code = code(refused.code);
        if !self.json {
            self.note(&format!(
                "line {line} is refused: {} ({code})",
                refused.message
            ));
            return;
        }
        let violations = refused.violations.into_iter();
        let violations: Vec<_> = violations
            .map(|it| json!({ "field": it.field, "description": it.description }))
            .collect();
        self.print(&json!({
            "event": "refused",
            "line": line,
            "task_id": task_id,
            "code": code,
            "message": refused.message,
            "violations": violations,
        }));
    }

    fn ended(&mut self, line: u64, status: &TaskStatus) {
        *match status.status.as_str() {
            "completed" => &mut self.counts.completed,
            "cancelled" => &mut self.counts.cancelled,
            _ => &mut self.counts.failed,
        } += 1;
        let mut value = task_with_result_json(status);
        value["event"] = "ended".into();
        value["line"] = line.into();
        if value["result"].is_null() {
            value["result_base64"] = BASE64_STANDARD.encode(&status.result).into();
        }
        self.print(&value);
    }

    fn print(&mut self, value: &Value) {
        if self.unwritable.is_none() {
            let printed = self.progress.suspend(|| print_json_line(value));
            self.unwritable = printed.err();
        }
    }

    fn note(&self, text: &str) {
        self.progress.suspend(|| print_note(format_args!("{text}")));
    }

    /// Prints the summary, and returns the result of the command. `failure` has ended the stream, with this
    /// many tasks unanswered and accepted tasks unended.
    pub fn finish(
        &mut self,
        failure: Option<Status>,
        [unanswered, unended]: [usize; 2],
    ) -> Result<(), CliError> {
        self.progress.finish();
        let summary = self.counts.text(self.wait);
        if self.json || self.wait {
            print_note(format_args!("{summary}"));
        } else {
            print_line(format_args!("{summary}"));
        }
        let rest = "run the same command again for the rest";
        if let Some(error) = self.unwritable.take() {
            let message = format!("cannot write the output: {error}; {rest}");
            return Err(CliError::failed(message));
        }
        if let Some(status) = failure {
            let missing = format!("{unanswered} tasks have no answer and {unended} no end");
            return Err(CliError::from(status).with(&format!("; {missing}: {rest}")));
        }
        if let Some(error) = self.unreadable.take() {
            return Err(CliError::usage(format!("cannot read on: {error}; {rest}")));
        }
        let Counts {
            refused,
            invalid,
            failed,
            cancelled,
            unread,
            ..
        } = self.counts;
        if invalid > 0 {
            let message =
                "invalid lines were left out; correct them and run the same command again";
            return Err(CliError::usage(message));
        }
        if refused > 0 {
            return Err(CliError::refused("the node refused some of the tasks"));
        }
        if failed + cancelled + unread > 0 {
            return Err(CliError::failed("not every task was completed and read"));
        }
        Ok(())
    }
}

impl Counts {
    fn text(&self, wait: bool) -> String {
        let Self {
            accepted,
            existing,
            refused,
            invalid,
            completed,
            failed,
            cancelled,
            unread,
        } = self;
        let submitted = format!(
            "{accepted} accepted, {existing} existing, {refused} refused, {invalid} invalid"
        );
        if !wait {
            return submitted;
        }
        let ended = format!("{completed} completed, {failed} failed, {cancelled} cancelled");
        match unread {
            0 => format!("{submitted}; {ended}"),
            _ => format!("{submitted}; {ended}, {unread} unread"),
        }
    }
}

/// The name of a gRPC status code.
fn code(number: u32) -> String {
    let code = i32::try_from(number).map_or(Code::Unknown, Code::from);
    format!("{code:?}")
}
