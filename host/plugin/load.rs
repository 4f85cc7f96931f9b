//! The two jobs of loading a file: reading it, which tells whether its content is new, and making a
//! generation of it. Change nothing that others see; that is the loader's.

use super::{
    Fault,
    generation::Generation,
    scan::Stamp,
    workshop::{Wasm, Workshop},
};
use hostel_task::Name;
use std::{path::PathBuf, sync::Arc};

/// What came of a job.
pub struct Done {
    pub file: PathBuf,
    pub stamp: Stamp,
    pub outcome: Outcome,
}

pub enum Outcome {
    /// It changed while it was read.
    Unstable,
    /// This content is served, or was refused before.
    Same(String),
    /// It is new, and had these task types when it last loaded.
    Read(Wasm, Vec<Name>),
    Made(Box<Generation>),
    Refused(Option<String>, Vec<Fault>),
}

pub async fn read(
    workshop: Arc<Workshop>,
    file: PathBuf,
    stamp: Stamp,
    known: Vec<String>,
) -> Done {
    let path = file.clone();
    let reading = tokio::task::spawn_blocking(move || {
        let wasm = workshop.read(&path);
        if !stamp.holds(&path) {
            return Outcome::Unstable;
        }
        match wasm {
            Err(fault) => Outcome::Refused(None, vec![fault]),
            Ok(wasm) if known.contains(&wasm.sha256) => Outcome::Same(wasm.sha256),
            Ok(wasm) => {
                let task_types = workshop.recorded_types(&wasm.sha256);
                Outcome::Read(wasm, task_types)
            }
        }
    });
    Done {
        file,
        stamp,
        outcome: reading.await.unwrap_or(Outcome::Unstable),
    }
}

pub async fn make(workshop: Arc<Workshop>, file: PathBuf, stamp: Stamp, wasm: Wasm) -> Done {
    let outcome = match workshop.make(&wasm).await {
        Ok(generation) => Outcome::Made(Box::new(generation)),
        // The compile process reads it once more, and may have met other content.
        Err(_) if !stamp.holds(&file) => Outcome::Unstable,
        Err(faults) => {
            let lasting = !faults.iter().any(Fault::may_pass);
            Outcome::Refused(lasting.then_some(wasm.sha256), faults)
        }
    };
    Done {
        file,
        stamp,
        outcome,
    }
}
