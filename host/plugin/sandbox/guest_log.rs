//! The output of guests: stdout, stderr and wasi:logging become log lines with the target
//! `hostel::guest`, cut off at the log limit of the call. What the node's log leaves out for its level
//! does not count. Stderr and critical records are kept besides as the reason of a failure, even if the
//! limit is reached.

use super::{bindings::Level, failure_reason::FailureReason};
use bytes::Bytes;
use hostel_runtime::untrusted::Untrusted;
use hostel_task::Name;
use parking_lot::Mutex;
use std::sync::Arc;
use tokio::io::{AsyncWrite, Sink, sink};
use wasmtime_wasi::{
    cli::{IsTerminal, StdoutStream},
    p2::{OutputStream, Pollable, StreamResult},
};

/// Lines that reach this are broken, behind the piece that reaches it.
const MAX_LINE_BYTES: usize = 8 << 10;

/// The plugin that log lines are attributed to, and its limit.
#[derive(Debug)]
pub struct LogSource {
    /// The plugin's name, or the stem of its file until the name is known.
    pub plugin: String,
    pub version: String,
    pub max_log_bytes: usize,
    /// Whether records count that the node's log leaves out, as they do where only the limit is of
    /// interest.
    pub counts_all: bool,
}

/// What a call is about.
#[derive(Debug, Clone, Default)]
pub enum Subject {
    /// The plugin itself, when it describes itself.
    #[default]
    Plugin,
    Task(Name),
    /// The start or the stop of the plugin's component.
    Component,
    /// A message to the component through this topic or its id.
    Topic(Name),
}

/// The log of one guest, call by call.
pub struct GuestLog {
    source: Arc<LogSource>,
    call: Mutex<CallLog>,
}

/// The log of one call.
#[derive(Default)]
struct CallLog {
    subject: Subject,
    bytes: usize,
    cut_off: bool,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    failure_reason: FailureReason,
}

#[derive(Clone, Copy)]
pub enum Stream {
    Stdout,
    Stderr,
}

impl GuestLog {
    pub fn new(source: Arc<LogSource>) -> Self {
        let call = Mutex::default();
        Self { source, call }
    }

    /// Begins a call, which has the whole limit again. Unfinished lines of the call before are logged
    /// first.
    pub fn begin(&self, subject: Subject) {
        let mut call = self.call.lock();
        self.end_lines(&mut call);
        *call = CallLog {
            subject,
            ..CallLog::default()
        };
    }

    /// How many bytes the call has logged, without those beyond the limit.
    pub fn bytes(&self) -> usize {
        self.call.lock().bytes
    }

    /// Whether the limit is reached. Nothing further is logged.
    pub fn is_cut_off(&self) -> bool {
        self.call.lock().cut_off
    }

    /// Logs a record of wasi:logging. Both texts are cut to what is left of the limit.
    pub fn log(&self, level: Level, context: &str, message: &str) {
        let mut call = self.call.lock();
        if level == Level::Critical {
            call.failure_reason.critical(message);
        }
        if !self.counts(level) {
            return;
        }
        let context = self.take(&mut call, context.as_bytes());
        let message = self.take(&mut call, message.as_bytes());
        let [context, message] = [context, message].map(String::from_utf8_lossy);
        self.emit(&call, level, &context, &message);
    }

    /// Takes the reason that the guest has given for the failure of the call, which may have several
    /// lines. An unfinished line counts as one.
    pub fn failure_reason(&self) -> Option<String> {
        let mut call = self.call.lock();
        self.end_lines(&mut call);
        call.failure_reason.take()
    }

    fn end_lines(&self, call: &mut CallLog) {
        for stream in [Stream::Stdout, Stream::Stderr] {
            let rest = std::mem::take(call.buffer(stream));
            if !rest.is_empty() {
                self.line(call, stream, &rest);
            }
        }
    }

    fn write(&self, stream: Stream, bytes: &[u8]) {
        let mut call = self.call.lock();
        if call.cut_off && matches!(stream, Stream::Stdout) {
            return;
        }
        for part in bytes.split_inclusive(|&byte| byte == b'\n') {
            let mut line = std::mem::take(call.buffer(stream));
            for piece in part.chunks(MAX_LINE_BYTES) {
                line.extend_from_slice(piece);
                if line.ends_with(b"\n") || line.len() >= MAX_LINE_BYTES {
                    self.line(&mut call, stream, &line);
                    line.clear();
                }
            }
            *call.buffer(stream) = line;
        }
    }

    fn line(&self, call: &mut CallLog, stream: Stream, line: &[u8]) {
        if matches!(stream, Stream::Stderr) {
            call.failure_reason.stderr(&String::from_utf8_lossy(line));
        }
        let (level, context) = match stream {
            Stream::Stdout => (Level::Info, "stdout"),
            Stream::Stderr => (Level::Warn, "stderr"),
        };
        if !self.counts(level) {
            return;
        }
        let text = String::from_utf8_lossy(self.take(call, line));
        self.emit(call, level, context, text.trim_end());
    }

    /// Whether records at this level count.
    fn counts(&self, level: Level) -> bool {
        macro_rules! is_kept {
            ($level:ident) => {
                tracing::enabled!(target: "hostel::guest", tracing::Level::$level)
            };
        }
        let is_kept = match level {
            Level::Trace => is_kept!(TRACE),
            Level::Debug => is_kept!(DEBUG),
            Level::Info => is_kept!(INFO),
            Level::Warn => is_kept!(WARN),
            Level::Error | Level::Critical => is_kept!(ERROR),
        };
        is_kept || self.source.counts_all
    }

    /// The part of `bytes` that is within the limit.
    fn take<'a>(&self, call: &mut CallLog, bytes: &'a [u8]) -> &'a [u8] {
        let left = self.source.max_log_bytes.saturating_sub(call.bytes);
        let taken = bytes.len().min(left);
        call.bytes = call.bytes.saturating_add(taken);
        if bytes.len() > left && !call.cut_off {
            call.cut_off = true;
            let note = format!(
                "the log of this call ends here: it has reached {} bytes \
                 (plugins.sandbox.max_log_bytes)",
                self.source.max_log_bytes
            );
            self.emit(call, Level::Warn, "hostel", &note);
        }
        &bytes[..taken]
    }

    fn emit(&self, call: &CallLog, level: Level, context: &str, message: &str) {
        if message.is_empty() {
            return;
        }
        let (context, message) = (Untrusted::new(context), Untrusted::new(message));
        let plugin = self.source.plugin.as_str();
        let version = self.source.version.as_str();
        // Fields that are `None` are left out of the line.
        let (mut task, mut component, mut topic) = (None, None, None);
        match &call.subject {
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
}

impl CallLog {
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
    pub log: Arc<GuestLog>,
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
        self.log.write(self.stream, &bytes);
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
    use tracing::{
        Event, Metadata, Subscriber,
        span::{Attributes, Id, Record},
        subscriber::with_default,
    };

    fn guest_log(max_log_bytes: usize) -> GuestLog {
        let source = LogSource {
            plugin: "p".into(),
            version: "1".into(),
            max_log_bytes,
            counts_all: true,
        };
        GuestLog::new(Arc::new(source))
    }

    /// A log that keeps records down to the level `info`.
    struct Informative;

    impl Subscriber for Informative {
        fn enabled(&self, metadata: &Metadata<'_>) -> bool {
            *metadata.level() <= tracing::Level::INFO
        }
        fn new_span(&self, _: &Attributes<'_>) -> Id {
            Id::from_u64(1)
        }
        fn record(&self, _: &Id, _: &Record<'_>) {}
        fn record_follows_from(&self, _: &Id, _: &Id) {}
        fn event(&self, _: &Event<'_>) {}
        fn enter(&self, _: &Id) {}
        fn exit(&self, _: &Id) {}
    }

    #[test]
    fn records_that_the_log_leaves_out_do_not_count() {
        let source = LogSource {
            plugin: "p".into(),
            version: "1".into(),
            max_log_bytes: 10,
            counts_all: false,
        };
        let log = GuestLog::new(Arc::new(source));
        with_default(Informative, || {
            for level in [Level::Trace, Level::Debug] {
                log.log(level, "", "a long record of what goes on");
                assert!(!log.is_cut_off(), "{level:?}");
            }
            log.log(Level::Info, "", "1234567890");
            assert!(!log.is_cut_off());
            log.log(Level::Info, "", "1");
            assert!(log.is_cut_off());
        });
        // Without any log the reason of a failure is still known.
        log.begin(Subject::Component);
        log.log(Level::Critical, "panic", "boom, with more than ten bytes");
        log.write(Stream::Stderr, b"and more than ten bytes of stderr\n");
        assert!(!log.is_cut_off());
        assert!(log.failure_reason().unwrap().starts_with("boom"));
    }

    #[test]
    fn a_panic_keeps_its_location_and_message() {
        let log = guest_log(1000);
        let said = "\nthread 'main' panicked at src/lib.rs:5:9:\nboom\n\
                    note: run with `RUST_BACKTRACE=1`\n";
        log.write(Stream::Stderr, said.as_bytes());
        let words = log.failure_reason().unwrap();
        assert_eq!(words, "thread 'main' panicked at src/lib.rs:5:9:\nboom");
    }

    #[test]
    fn an_unfinished_line_of_stderr_counts_and_stdout_does_not() {
        let log = guest_log(1000);
        log.write(Stream::Stdout, b"hello\n");
        log.write(Stream::Stderr, b"first\nsec");
        log.write(Stream::Stderr, b"ond");
        assert_eq!(log.failure_reason().unwrap(), "first\nsecond");
        assert_eq!(log.failure_reason(), None);
    }

    #[test]
    fn control_characters_are_escaped() {
        let log = guest_log(1000);
        log.write(Stream::Stderr, b"fine\rWARN forged\x1b[2K\r\n");
        let words = log.failure_reason().unwrap();
        assert_eq!(words, "fine\\rWARN forged\\u{1b}[2K");
    }

    #[test]
    fn the_limit_holds_for_all_streams_together() {
        let log = guest_log(10);
        log.write(Stream::Stdout, b"12345\n");
        assert!(!log.is_cut_off());
        log.log(Level::Info, "", "67890");
        assert!(log.is_cut_off());
        log.begin(Subject::Component);
        assert!(!log.is_cut_off(), "the next call has the whole limit");
    }

    #[test]
    fn the_failure_reason_is_kept_when_the_log_is_cut_off() {
        let log = guest_log(10);
        log.write(Stream::Stderr, b"12345678901\n");
        assert!(log.is_cut_off());
        log.write(Stream::Stderr, b"the reason");
        assert_eq!(log.failure_reason().unwrap(), "12345678901\nthe reason");
        log.log(Level::Critical, "panic", "boom");
        assert_eq!(log.failure_reason().unwrap(), "boom");
        log.begin(Subject::Component);
        assert!(!log.is_cut_off(), "the next call has the whole limit");
    }
}
