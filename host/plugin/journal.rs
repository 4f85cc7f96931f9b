//! What a guest says: stdout, stderr and wasi:logging, line by line into tracing (target
//! `hostel::guest`), cut off at the call's log limit. What may say why a call failed is kept besides,
//! whether or not the log has room for it.

use super::{bindings::Level, last_words::LastWords};
use bytes::Bytes;
use hostel_runtime::untrusted::Untrusted;
use hostel_task::Name;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::io::{AsyncWrite, Sink, sink};
use wasmtime_wasi::{
    cli::{IsTerminal, StdoutStream},
    p2::{OutputStream, Pollable, StreamResult},
};

/// Longer lines are broken.
const MAX_LINE_BYTES: usize = 8 << 10;

/// Who speaks.
#[derive(Debug)]
pub struct Speaker {
    /// The plugin's name, or its file until the name is known.
    pub plugin: String,
    pub version: String,
    pub max_log_bytes: usize,
}

/// What a guest's call is about.
#[derive(Debug, Clone, Default)]
pub enum Subject {
    /// The plugin itself, as when it describes itself.
    #[default]
    Plugin,
    Task(Name),
    /// The plugin's component starts or stops.
    Component,
    /// Its component handles a message that was sent to this topic.
    Topic(Name),
}

/// What a guest says, call by call.
pub struct Journal {
    speaker: Arc<Speaker>,
    said: Mutex<Said>,
}

/// What one call has said.
#[derive(Default)]
struct Said {
    subject: Subject,
    bytes: usize,
    cut_off: bool,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    last_words: LastWords,
}

#[derive(Clone, Copy)]
pub enum Stream {
    Stdout,
    Stderr,
}

impl Journal {
    pub fn new(speaker: Arc<Speaker>) -> Self {
        let said = Mutex::default();
        Self { speaker, said }
    }

    /// The next call has all of the room again. What the one before left unfinished is said first.
    pub fn begin(&self, subject: Subject) {
        let mut said = self.lock();
        self.end_lines(&mut said);
        *said = Said {
            subject,
            ..Said::default()
        };
    }

    /// Whether there was more to say than room. Nothing further is kept.
    pub fn is_cut_off(&self) -> bool {
        self.lock().cut_off
    }

    /// One record of wasi:logging. Both texts are cut to what is left.
    pub fn log(&self, level: Level, context: &str, message: &str) {
        let mut said = self.lock();
        if level == Level::Critical {
            said.last_words.critical(message);
        }
        let context = self.take(&mut said, context.as_bytes());
        let message = self.take(&mut said, message.as_bytes());
        let [context, message] = [context, message].map(String::from_utf8_lossy);
        self.emit(&said, level, &context, &message);
    }

    /// Why the call failed, as far as it has said so; may have several lines. Ends the journal: an
    /// unfinished line counts.
    pub fn last_words(&self) -> Option<String> {
        let mut said = self.lock();
        self.end_lines(&mut said);
        said.last_words.take()
    }

    fn end_lines(&self, said: &mut Said) {
        for stream in [Stream::Stdout, Stream::Stderr] {
            let rest = std::mem::take(said.buffer(stream));
            if !rest.is_empty() {
                self.line(said, stream, &rest);
            }
        }
    }

    fn write(&self, stream: Stream, bytes: &[u8]) {
        let mut said = self.lock();
        if said.cut_off && matches!(stream, Stream::Stdout) {
            return;
        }
        for part in bytes.split_inclusive(|&byte| byte == b'\n') {
            let mut line = std::mem::take(said.buffer(stream));
            for piece in part.chunks(MAX_LINE_BYTES) {
                line.extend_from_slice(piece);
                if line.ends_with(b"\n") || line.len() >= MAX_LINE_BYTES {
                    self.line(&mut said, stream, &line);
                    line.clear();
                }
            }
            *said.buffer(stream) = line;
        }
    }

    fn line(&self, said: &mut Said, stream: Stream, line: &[u8]) {
        if matches!(stream, Stream::Stderr) {
            said.last_words.stderr(&String::from_utf8_lossy(line));
        }
        let room = self.take(said, line);
        let text = String::from_utf8_lossy(room);
        let (level, context) = match stream {
            Stream::Stdout => (Level::Info, "stdout"),
            Stream::Stderr => (Level::Warn, "stderr"),
        };
        self.emit(said, level, context, text.trim_end());
    }

    fn take<'a>(&self, said: &mut Said, bytes: &'a [u8]) -> &'a [u8] {
        let room = self.speaker.max_log_bytes.saturating_sub(said.bytes);
        said.bytes = said.bytes.saturating_add(bytes.len().min(room));
        if bytes.len() > room && !said.cut_off {
            said.cut_off = true;
            let note = format!(
                "the log of this call ends here: it has reached {} bytes \
                 (plugins.sandbox.max_log_bytes)",
                self.speaker.max_log_bytes
            );
            self.emit(said, Level::Warn, "hostel", &note);
        }
        &bytes[..bytes.len().min(room)]
    }

    fn emit(&self, said: &Said, level: Level, context: &str, message: &str) {
        if message.is_empty() {
            return;
        }
        let (context, message) = (Untrusted::new(context), Untrusted::new(message));
        let plugin = self.speaker.plugin.as_str();
        let version = self.speaker.version.as_str();
        // A field that says nothing is left out of the line.
        let (mut task, mut component, mut topic) = (None, None, None);
        match &said.subject {
            Subject::Plugin => {}
            Subject::Task(id) => task = Some(id.as_str()),
            Subject::Component => component = Some(plugin),
            Subject::Topic(name) => (component, topic) = (Some(plugin), Some(name.as_str())),
        }
        macro_rules! event {
            ($level:ident) => {
                tracing::event!(
                    target: "hostel::guest",
                    tracing::Level::$level,
                    plugin,
                    version,
                    task,
                    component,
                    topic,
                    context = tracing::field::display(&context),
                    "{message}"
                )
            };
        }
        match level {
            Level::Trace => event!(TRACE),
            Level::Debug => event!(DEBUG),
            Level::Info => event!(INFO),
            Level::Warn => event!(WARN),
            Level::Error | Level::Critical => event!(ERROR),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Said> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Said {
    fn buffer(&mut self, stream: Stream) -> &mut Vec<u8> {
        match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        }
    }
}

/// The guest's end of stdout or stderr.
#[derive(Clone)]
pub struct Pipe {
    pub journal: Arc<Journal>,
    pub stream: Stream,
}

impl IsTerminal for Pipe {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for Pipe {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        // Only for WASI 0.3, which the linker does not offer.
        let nowhere: Sink = sink();
        Box::new(nowhere)
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

impl OutputStream for Pipe {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.journal.write(self.stream, &bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(64 << 10)
    }
}

#[async_trait::async_trait]
impl Pollable for Pipe {
    async fn ready(&mut self) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    fn journal(max_log_bytes: usize) -> Journal {
        let speaker = Speaker {
            plugin: "p".into(),
            version: "1".into(),
            max_log_bytes,
        };
        Journal::new(Arc::new(speaker))
    }

    #[test]
    fn a_panic_keeps_its_place_and_message() {
        let journal = journal(1000);
        let said = "\nthread 'main' panicked at src/lib.rs:5:9:\nboom\n\
                    note: run with `RUST_BACKTRACE=1`\n";
        journal.write(Stream::Stderr, said.as_bytes());
        let words = journal.last_words().unwrap();
        assert_eq!(words, "thread 'main' panicked at src/lib.rs:5:9:\nboom");
    }

    #[test]
    fn an_unfinished_line_counts_and_stdout_does_not() {
        let journal = journal(1000);
        journal.write(Stream::Stdout, b"hello\n");
        journal.write(Stream::Stderr, b"first\nsec");
        journal.write(Stream::Stderr, b"ond");
        assert_eq!(journal.last_words().unwrap(), "first\nsecond");
        assert_eq!(journal.last_words(), None);
    }

    #[test]
    fn nothing_that_a_terminal_obeys_gets_through() {
        let journal = journal(1000);
        journal.write(Stream::Stderr, b"fine\rWARN forged\x1b[2K\r\n");
        let words = journal.last_words().unwrap();
        assert_eq!(words, "fine\\rWARN forged\\u{1b}[2K");
    }

    #[test]
    fn the_limit_holds_for_all_streams_together() {
        let journal = journal(10);
        journal.write(Stream::Stdout, b"12345");
        journal.log(Level::Info, "", "67890 and more");
        assert!(journal.is_cut_off());
        journal.begin(Subject::Component);
        assert!(!journal.is_cut_off(), "the next call has room again");
    }

    #[test]
    fn why_a_call_failed_is_known_when_its_log_is_full() {
        let journal = journal(10);
        journal.write(Stream::Stderr, b"12345678901\n");
        assert!(journal.is_cut_off());
        journal.write(Stream::Stderr, b"the reason");
        assert_eq!(journal.last_words().unwrap(), "12345678901\nthe reason");
        journal.log(Level::Critical, "panic", "boom");
        assert_eq!(journal.last_words().unwrap(), "boom");
        journal.begin(Subject::Component);
        assert!(!journal.is_cut_off(), "the next call has room again");
    }
}
