//! Guests written by hand as component text: for the self-check of a node, and for tests that must not
//! need a wasm toolchain. One template, with a description and a `handle` of choice.

use std::fmt::Write;

/// A guest. The default echoes its payload, under the name and task type `sample`.
#[derive(Debug, Clone)]
pub struct TestGuest<'a> {
    /// The plugin's name.
    pub name: &'a str,
    /// The plugin's version.
    pub version: &'a str,
    /// The task types that it declares.
    pub task_types: &'a [&'a str],
    /// Core instructions that `handle` runs before it returns. They find the payload in `$payload` and
    /// `$payload-len` and leave the result in `$result` and `$result-len`.
    pub handle: &'a str,
    /// Core instructions that `describe` runs before it returns.
    pub describe: &'a str,
    /// Core items beside the functions, such as a table.
    pub extra: &'a str,
    /// The version of both interfaces.
    pub interface: &'a str,
}

impl Default for TestGuest<'_> {
    fn default() -> Self {
        Self {
            name: "sample",
            version: "1",
            task_types: &["sample"],
            handle: ECHO,
            describe: "",
            extra: "",
            interface: "0.1.0",
        }
    }
}

/// A `handle` that returns the payload.
pub const ECHO: &str = "(local.set $result (local.get $payload))
    (local.set $result-len (local.get $payload-len))";
/// A `handle` that traps.
pub const TRAP: &str = "unreachable";
/// A `handle` that never ends.
pub const SPIN: &str = "(loop $l (br $l))";
/// Calls the host for the time in an endless loop.
pub const CALL_HOST: &str = "(loop $l (drop (call $now)) (br $l))";
/// Grows its memory until that fails, then traps as an allocator would.
pub const GROW_MEMORY: &str =
    "(loop $l (br_if $l (i32.ne (memory.grow (i32.const 16)) (i32.const -1)))) unreachable";
/// Needs `GROWABLE_TABLE` in `extra`.
pub const GROW_TABLE: &str = "(loop $l (br_if $l
    (i32.ne (table.grow $t (ref.null func) (i32.const 1000)) (i32.const -1)))) unreachable";
/// A declaration of a table that can grow.
pub const GROWABLE_TABLE: &str = "(table $t 1 funcref)";
/// A `handle` that calls itself without end.
pub const RECURSE: &str = "(call $recurse)";
/// Logs 100 MiB in pieces of 64 KiB, then echoes.
pub const LOG_TOO_MUCH: &str = "(local.set $n (i32.const 1600))
    (loop $l
      (call $log (i32.const 2) (i32.const 0) (i32.const 0) (i32.const 196608) (i32.const 65536))
      (br_if $l (local.tee $n (i32.sub (local.get $n) (i32.const 1)))))
    (local.set $result (local.get $payload))
    (local.set $result-len (local.get $payload-len))";
/// Returns as many bytes as it found environment variables and directories.
pub const LOOK_AROUND: &str = "(call $environment (i32.const 3200))
    (call $directories (i32.const 3208))
    (local.set $result-len (i32.add (i32.load (i32.const 3204)) (i32.load (i32.const 3212))))";

/// A body that returns this many bytes.
pub fn result_of(bytes: usize) -> String {
    let pages = bytes.div_ceil(64 << 10);
    format!(
        "(drop (memory.grow (i32.const {pages})))
        (local.set $result-len (i32.const {bytes}))"
    )
}

// Addresses in the guest's memory. The heap begins behind the texts.
const DESCRIPTION: u32 = 16;
const RESULT: u32 = 3072;
const TASK_TYPES: u32 = 8 << 10;
const TEXT: u32 = 32 << 10;
const HEAP: u32 = 128 << 10;

impl TestGuest<'_> {
    /// The guest as a binary component. Fails if the parts do not make valid text.
    pub fn wasm(&self) -> Result<Vec<u8>, String> {
        wat::parse_str(self.text()).map_err(|error| error.to_string())
    }

    /// The guest as component text.
    pub fn text(&self) -> String {
        let data = self.data();
        let Self {
            handle,
            describe,
            extra,
            interface,
            ..
        } = self;
        format!(
            r#"(component
  (import "wasi:clocks/monotonic-clock@0.2.0" (instance $clock
    (export "now" (func (result u64)))))
  (import "wasi:logging/logging@0.1.0-draft" (instance $logging
    (type $l (enum "trace" "debug" "info" "warn" "error" "critical"))
    (export "level" (type $level (eq $l)))
    (export "log" (func (param "level" $level) (param "context" string) (param "message" string)))))
  (import "wasi:cli/environment@0.2.0" (instance $environment
    (export "get-environment" (func (result (list (tuple string string)))))))
  (import "wasi:filesystem/types@0.2.0" (instance $files
    (export "descriptor" (type (sub resource)))))
  (alias export $files "descriptor" (type $descriptor))
  (import "wasi:filesystem/preopens@0.2.0" (instance $preopens
    (alias outer 1 $descriptor (type $outer))
    (export "descriptor" (type $d (eq $outer)))
    (export "get-directories" (func (result (list (tuple (own $d) string)))))))

  (core module $libc
    (memory (export "memory") 4)
    (global $heap (mut i32) (i32.const {HEAP}))
    (func (export "realloc") (param i32 i32 i32) (param $bytes i32) (result i32)
      (local $at i32)
      (local.set $at (i32.and (i32.add (global.get $heap) (i32.const 7)) (i32.const -8)))
      (global.set $heap (i32.add (local.get $at) (local.get $bytes)))
      (block $fits
        (br_if $fits (i32.le_u (global.get $heap) (i32.mul (memory.size) (i32.const 65536))))
        (br_if $fits (i32.ne (i32.const -1)
          (memory.grow (i32.add (i32.const 1) (i32.div_u (local.get $bytes) (i32.const 65536))))))
        unreachable)
      (local.get $at)))
  (core instance $libc (instantiate $libc))
  (alias core export $libc "memory" (core memory $memory))
  (alias core export $libc "realloc" (core func $realloc))
  (core func $now (canon lower (func $clock "now")))
  (core func $log (canon lower (func $logging "log") (memory $memory)))
  (core func $environment (canon lower (func $environment "get-environment")
    (memory $memory) (realloc $realloc)))
  (core func $directories (canon lower (func $preopens "get-directories")
    (memory $memory) (realloc $realloc)))

  (core module $guest
    (import "libc" "memory" (memory 1))
    (import "host" "now" (func $now (result i64)))
    (import "host" "log" (func $log (param i32 i32 i32 i32 i32)))
    (import "host" "environment" (func $environment (param i32)))
    (import "host" "directories" (func $directories (param i32)))
    {extra}
    {data}
    (func $recurse (call $recurse) (call $recurse))
    (func (export "describe") (result i32)
      {describe}
      (i32.const {DESCRIPTION}))
    (func (export "handle") (param i32 i32 i32 i32) (param $payload i32) (param $payload-len i32)
      (param i32 i32 i32 i32 i64) (result i32)
      (local $result i32) (local $result-len i32) (local $n i32)
      {handle}
      (i32.store (i32.const {RESULT}) (i32.const 0))
      (i32.store offset=8 (i32.const {RESULT}) (local.get $result))
      (i32.store offset=12 (i32.const {RESULT}) (local.get $result-len))
      (i32.const {RESULT})))
  (core instance $guest (instantiate $guest
    (with "libc" (instance $libc))
    (with "host" (instance
      (export "now" (func $now))
      (export "log" (func $log))
      (export "environment" (func $environment))
      (export "directories" (func $directories))))))

  (type $task-type' (record (field "name" string) (field "description" string)
    (field "timeout-ms" (option u64)) (field "max-attempts" (option u32))
    (field "backoff-initial-ms" (option u64)) (field "backoff-max-ms" (option u64))
    (field "max-concurrency" (option u32))))
  (export $task-type "task-type" (type $task-type'))
  (type $description' (record (field "name" string) (field "version" string)
    (field "description" string) (field "task-types" (list $task-type))
    (field "topics" (list string))))
  (export $description "description" (type $description'))
  (func $describe (result $description)
    (canon lift (core func $guest "describe") (memory $memory)))
  (instance $manifest
    (export "task-type" (type $task-type))
    (export "description" (type $description))
    (export "describe" (func $describe)))
  (export "hostel:plugin/manifest@{interface}" (instance $manifest))

  (type $task' (record (field "id" string) (field "task-type" string)
    (field "payload" (list u8)) (field "metadata" (list (tuple string string)))
    (field "attempt" u32) (field "max-attempts" u32) (field "timeout-ms" u64)))
  (export $task "task" (type $task'))
  (type $retryable' (record (field "message" string) (field "retry-after-ms" (option u64))))
  (export $retryable "retryable-error" (type $retryable'))
  (type $error' (variant (case "retryable" $retryable) (case "permanent" string)))
  (export $error "task-error" (type $error'))
  (func $handle (param "task" $task) (result (result (list u8) (error $error)))
    (canon lift (core func $guest "handle") (memory $memory) (realloc $realloc)))
  (instance $handler
    (export "task" (type $task))
    (export "retryable-error" (type $retryable))
    (export "task-error" (type $error))
    (export "handle" (func $handle)))
  (export "hostel:plugin/task-handler@{interface}" (instance $handler)))"#
        )
    }

    /// The description, its task types and their texts, as data segments of the guest's memory.
    fn data(&self) -> String {
        let mut texts = Vec::new();
        let mut text = |given: &str| {
            let at = TEXT + u32::try_from(texts.len()).unwrap_or(u32::MAX);
            texts.extend_from_slice(given.as_bytes());
            [at, u32::try_from(given.len()).unwrap_or(u32::MAX)]
        };
        let count = u32::try_from(self.task_types.len()).unwrap_or(u32::MAX);
        let lists = [TASK_TYPES, count, 0, 0];
        let description: Vec<u32> = [text(self.name), text(self.version), text("A sample")]
            .into_iter()
            .flatten()
            .chain(lists)
            .collect();
        // A task type has 80 bytes; everything after its two texts is absent.
        let mut task_types = Vec::new();
        for task_type in self.task_types {
            task_types.extend(text(task_type));
            task_types.extend(text("A sample of work"));
            task_types.extend([0; 16]);
        }
        let mut data = String::new();
        for (at, words) in [(DESCRIPTION, description), (TASK_TYPES, task_types)] {
            let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
            segment(&mut data, at, &bytes);
        }
        segment(&mut data, TEXT, &texts);
        data
    }
}

fn segment(out: &mut String, at: u32, bytes: &[u8]) {
    let escaped: String = bytes.iter().map(|byte| format!("\\{byte:02x}")).collect();
    // Writing to a string cannot fail.
    let _ = writeln!(out, "(data (i32.const {at}) \"{escaped}\")");
}
