//! `hostel submit --many`: submits the tasks of a file, a JSON object a line, on one stream.

mod line;
mod reader;
mod report;

use super::{connection::ConnectionArgs, error::CliError, output::Progress};
use clap::Args;
use parking_lot::Mutex;
use report::Report;
use std::{path::PathBuf, sync::Arc, time::Duration};

/// How long a lost connection is made again.
const RETRY_TIMEOUT: Duration = Duration::from_secs(30);

/// The format of the file, for the help of the command.
pub const HELP: &str = "\
The file of --many has a JSON object in each line, with the fields of a task:
  task_type, task_id, node, label, group, unique_key
                                    strings
  tags                              a list of strings
  priority                          high, normal or low
  delay_ms, run_at_ms, start_by_ms, timeout_ms, max_attempts, backoff_initial_ms, backoff_max_ms,
  result_ttl_ms, unique_for_ms      whole numbers
  metadata                          an object of strings
  payload                           a string; or in its place payload_base64, or payload_json, any JSON value,
                                    which is sent without white space and with its keys in order
A task without a task_id gets one made of the name of the file (see --batch), the number of its line and its
content: when the same command is run again, what was submitted before is not submitted twice. Invalid lines
are named and left out. With --wait each end is printed as a JSON line, in the order of the ends, and with
--json what became of each line. The exit code is 2 if a line was invalid, else 4 if a task was refused, else
1 if a task did not complete; 3 if the node could not be reached for 30 s.";

/// The arguments for many tasks.
#[derive(Debug, Args)]
#[group(skip)]
pub struct ManyArgs {
    /// Submit all tasks of this file, or those on stdin with `-`
    #[arg(
        long,
        value_name = "FILE",
        conflicts_with_all = ["task_type", "stdin", "payload", "file", "id", "metadata", "node", "label",
            "delay", "run_at", "start_by", "timeout", "max_attempts", "backoff_initial", "backoff_max", "keep",
            "priority", "group", "tags", "unique_key", "unique_for"]
    )]
    pub many: Option<PathBuf>,
    /// The name in the ids of tasks without one; give another to submit the same lines once more
    /// [default: the name of the file]
    #[arg(long, value_name = "NAME")]
    pub batch: Option<String>,
}

impl ManyArgs {
    /// Submits the tasks of the file `path`.
    pub async fn run(
        self,
        path: PathBuf,
        connection: &ConnectionArgs,
        wait: bool,
        json: bool,
    ) -> Result<(), CliError> {
        let mut lines = reader::read(&path, self.batch)?;
        let client = connection.connect().await?;
        let mut client = client.with_retry_timeout(RETRY_TIMEOUT);
        let progress = Progress::new(lines.total_bytes);
        // Tasks are taken, and their responses received, by one call at a time.
        let report = Arc::new(Mutex::new(Report::new(json, wait, progress)));
        let of_lines = report.clone();
        let tasks = async_stream::stream! {
            while let Some(portion) = lines.receiver.recv().await {
                let portion = match portion {
                    Ok(portion) => portion,
                    Err(error) => {
                        of_lines.lock().unreadable(error);
                        break;
                    }
                };
                for line in portion {
                    of_lines.lock().line(&line);
                    if let Ok(task) = line.task {
                        yield task;
                    }
                }
            }
        };
        let mut stream = if wait {
            client.submit_many_to_end(tasks)
        } else {
            client.submit_many(tasks)
        };
        let mut failure = None;
        while let Some(response) = stream.next().await {
            match response {
                Ok(response) => report.lock().response(response),
                Err(status) => failure = Some(status),
            }
            if report.lock().is_over() {
                break;
            }
        }
        let missing = [stream.unanswered(), stream.unended()];
        report.lock().finish(failure, missing)
    }
}
