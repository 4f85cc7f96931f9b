//! A plugin file as it was read once: its size, its hash and its first bytes. The content stays on
//! disk; only the compile process takes it in.

use crate::diagnostic::Diagnostic;
use sha2::{Digest, Sha256};
use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

/// How many bytes tell the kind of a file.
const HEAD_BYTES: usize = 8;
const READ_BYTES: usize = 64 << 10;

/// What one reading of a plugin file has shown.
#[derive(Debug, Clone)]
pub struct WasmFile {
    pub file: PathBuf,
    /// The first bytes, which tell what kind of file it is.
    pub head: Vec<u8>,
    pub bytes: u64,
    /// In hex.
    pub sha256: String,
}

impl WasmFile {
    /// Reads `file` once, if it has at most `max_bytes`. Blocks.
    pub fn read(file: &Path, max_bytes: u64) -> Result<Self, Diagnostic> {
        let mut content = File::open(file)
            .map_err(unreadable)?
            .take(max_bytes.saturating_add(1));
        let mut hasher = Sha256::new();
        let mut wasm = Self {
            file: file.to_owned(),
            head: Vec::new(),
            bytes: 0,
            sha256: String::new(),
        };
        let mut piece = vec![0; READ_BYTES];
        loop {
            let read = content.read(&mut piece).map_err(unreadable)?;
            if read == 0 {
                break;
            }
            let missing = HEAD_BYTES - wasm.head.len();
            wasm.head.extend(piece[..read].iter().take(missing));
            wasm.bytes += read as u64;
            hasher.update(&piece[..read]);
        }
        if wasm.bytes > max_bytes {
            return Err(Diagnostic::new(format!(
                "has more than {max_bytes} bytes (plugins.max_file_bytes)"
            )));
        }
        wasm.sha256 = hex(&hasher.finalize());
        Ok(wasm)
    }

    pub fn open(&self) -> Result<File, Diagnostic> {
        File::open(&self.file).map_err(unreadable)
    }
}

fn unreadable(error: io::Error) -> Diagnostic {
    Diagnostic::passing(format!("cannot be read: {error}"))
}

/// `bytes` in hexadecimal digits, as hashes are written.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
