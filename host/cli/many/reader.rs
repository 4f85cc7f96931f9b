//! Reads the lines of a file of any size in a thread of its own, and gives tasks without an id one that
//! stays the same when the file is read again.

use super::line;
use crate::{cli::error::CliError, proto::distributed::Task};
use sha2::{Digest, Sha256};
use std::{
    fmt::Write,
    fs::File,
    io::{self, BufRead, BufReader, Read},
    path::Path,
};
use tokio::sync::mpsc;

/// The longest line, in bytes.
const MAX_LINE_BYTES: usize = 64 << 20;

/// How many lines, and from how many bytes on, are passed on together; and how many such portions wait.
const PORTION: usize = 64;
const PORTION_BYTES: u64 = 64 << 10;
const PORTIONS: usize = 2;

/// A line with a task, or with what is wrong with it.
pub struct Line {
    /// The number of the line, from 1.
    pub number: u64,
    pub task: Result<Task, Vec<String>>,
    /// How many bytes of the file end with this line.
    pub end: u64,
}

/// Some lines in their order, or why no more can be read.
pub type Portion = io::Result<Vec<Line>>;

/// The lines of a file.
pub struct Lines {
    pub receiver: mpsc::Receiver<Portion>,
    /// The size of the file, if it has one.
    pub total_bytes: Option<u64>,
}

/// Opens a file, or stdin for `-`. `batch` is the name in the ids of lines without one.
pub fn read(path: &Path, batch: Option<String>) -> Result<Lines, CliError> {
    let is_stdin = path == Path::new("-");
    let unreadable =
        |error: io::Error| CliError::usage(format!("cannot read {}: {error}", path.display()));
    let (source, total_bytes): (Box<dyn Read + Send>, _) = if is_stdin {
        (Box::new(io::stdin()), None)
    } else {
        let file = File::open(path).map_err(unreadable)?;
        let metadata = file.metadata().map_err(unreadable)?;
        if metadata.is_dir() {
            return Err(unreadable(io::ErrorKind::IsADirectory.into()));
        }
        let total = metadata.is_file().then_some(metadata.len());
        (Box::new(file), total)
    };
    let name = path.file_name().unwrap_or_default();
    let batch = batch.unwrap_or_else(|| name.to_string_lossy().into_owned());
    let (sender, receiver) = mpsc::channel(PORTIONS);
    let reader = Reader {
        source: BufReader::with_capacity(256 << 10, source),
        batch,
        number: 0,
        end: 0,
    };
    // It ends with the file, or when the lines are no longer received.
    tokio::task::spawn_blocking(move || reader.run(&sender));
    Ok(Lines {
        receiver,
        total_bytes,
    })
}

struct Reader<R> {
    source: BufReader<R>,
    batch: String,
    number: u64,
    end: u64,
}

impl<R: Read> Reader<R> {
    fn run(mut self, sender: &mpsc::Sender<Portion>) {
        loop {
            let portion = match self.portion() {
                Ok(lines) if lines.is_empty() => return,
                portion => portion,
            };
            let is_last = portion.is_err();
            if sender.blocking_send(portion).is_err() || is_last {
                return;
            }
        }
    }

    /// The next lines; none at the end of the file.
    fn portion(&mut self) -> Portion {
        let (mut lines, begin) = (Vec::<Line>::new(), self.end);
        let mut buffer = Vec::new();
        let is_full =
            |lines: &[Line], end: u64| lines.len() >= PORTION || end - begin >= PORTION_BYTES;
        // Lines that are complete are passed on, rather than waiting for more input.
        while lines.is_empty()
            || !is_full(&lines, self.end) && self.source.buffer().contains(&b'\n')
        {
            buffer.clear();
            let Some(fault) = self.next_line(&mut buffer)? else {
                break;
            };
            let text = buffer.trim_ascii();
            let task = match fault {
                Some(fault) => Err(vec![fault]),
                None if text.is_empty() => continue,
                None => line::parse(text).map(|task| self.with_id(task, text)),
            };
            lines.push(Line {
                number: self.number,
                task,
                end: self.end,
            });
        }
        Ok(lines)
    }

    /// Reads a line into `buffer`, or what is wrong with it; `None` at the end of the file.
    fn next_line(&mut self, buffer: &mut Vec<u8>) -> io::Result<Option<Option<String>>> {
        let most = MAX_LINE_BYTES as u64 + 1;
        let read = self.source.by_ref().take(most).read_until(b'\n', buffer)?;
        if read == 0 {
            return Ok(None);
        }
        self.number += 1;
        self.end += read as u64;
        if read <= MAX_LINE_BYTES || buffer.ends_with(b"\n") {
            return Ok(Some(None));
        }
        self.skip_line()?;
        Ok(Some(Some(format!("longer than {MAX_LINE_BYTES} bytes"))))
    }

    fn skip_line(&mut self) -> io::Result<()> {
        loop {
            let read = self.source.fill_buf()?;
            let (used, is_end) = match read.iter().position(|byte| *byte == b'\n') {
                Some(at) => (at + 1, true),
                None => (read.len(), read.is_empty()),
            };
            self.source.consume(used);
            self.end += used as u64;
            if is_end {
                return Ok(());
            }
        }
    }

    /// Gives the task an id made of the batch's name, the number of the line and its content.
    fn with_id(&self, mut task: Task, text: &[u8]) -> Task {
        if task.task_id.is_empty() {
            let mut hash = Sha256::new();
            hash.update(self.batch.as_bytes());
            hash.update([0]);
            hash.update(text);
            let mut id = format!("line-{}-", self.number);
            for byte in &hash.finalize()[..16] {
                // Writing to a string cannot fail.
                let _ = write!(id, "{byte:02x}");
            }
            task.task_id = id;
        }
        task
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: impl AsRef<[u8]>, batch: &str) -> Vec<Line> {
        let mut reader = Reader {
            source: BufReader::new(text.as_ref()),
            batch: batch.into(),
            number: 0,
            end: 0,
        };
        let mut all = Vec::new();
        loop {
            let portion = reader.portion().unwrap();
            if portion.is_empty() {
                return all;
            }
            assert!(portion.len() <= PORTION);
            all.extend(portion);
        }
    }

    fn id(line: &Line) -> String {
        line.task.as_ref().unwrap().task_id.clone()
    }

    #[test]
    fn ids_are_made_of_place_and_content() {
        let text = "{\"task_type\": \"a\"}\r\n\n  {\"task_type\": \"a\"}\n{\"task_id\": \"own\"}";
        let first = lines(text, "x");
        assert_eq!(
            first.iter().map(|line| line.number).collect::<Vec<_>>(),
            [1, 3, 4]
        );
        assert_eq!(first[2].end, text.len() as u64);
        assert!(id(&first[0]).starts_with("line-1-") && id(&first[1]).starts_with("line-3-"));
        assert_eq!(id(&first[0]).len(), "line-1-".len() + 32);
        assert_eq!(id(&first[2]), "own");
        // The same line has the same hash, also with other white space around it.
        assert_eq!(id(&first[0])[7..], id(&first[1])[7..]);
        assert_eq!(id(&lines(text, "x")[0]), id(&first[0]));
        assert_ne!(id(&lines(text, "y")[0]), id(&first[0]));
        assert_ne!(id(&lines("{\"task_type\": \"b\"}", "x")[0]), id(&first[0]));
    }

    #[test]
    fn a_long_line_is_skipped_and_named() {
        let mut text = vec![b' '; MAX_LINE_BYTES + 10];
        text.extend_from_slice(b"\n{}\n");
        let all = lines(&text, "x");
        assert_eq!(all.len(), 2);
        let faults = all[0].task.as_ref().unwrap_err();
        assert_eq!(faults, &["longer than 67108864 bytes"]);
        assert!(all[1].task.is_ok());
        assert_eq!((all[1].number, all[1].end), (2, text.len() as u64));
    }

    #[test]
    fn many_lines_come_in_portions() {
        let text = "{}\n".repeat(1000);
        let all = lines(&text, "x");
        let numbers = all.iter().map(|line| line.number);
        assert_eq!(Vec::from_iter(numbers), Vec::from_iter(1..=1000));
    }
}
