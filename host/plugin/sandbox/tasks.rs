//! `hostel:plugin/tasks` for guests: hands their progress to the observer of the attempt, and tells them
//! whether it is cancelled. Outside of a task there is no observer: nothing is reported nor cancelled.

use super::store_state::StoreState;
use wasmtime::{
    StoreContextMut,
    component::{Linker, WasmStr},
};

/// Provides the interface. Not through the generated trait, which would copy a note before it can be cut.
pub fn add_to_linker(linker: &mut Linker<StoreState>) -> wasmtime::Result<()> {
    let mut tasks = linker.instance("hostel:plugin/tasks@0.1.0")?;
    tasks.func_wrap("progress", progress)?;
    tasks.func_wrap("is-cancelled", is_cancelled)
}

fn progress(
    store: StoreContextMut<'_, StoreState>,
    (done, total, note): (u64, u64, WasmStr),
) -> wasmtime::Result<()> {
    // Read in any case: a note that is no text is the guest's fault everywhere.
    let note = note.to_str(&store)?;
    if let Some(observer) = &store.data().observer {
        observer.progress(done, total, &note);
    }
    Ok(())
}

fn is_cancelled(store: StoreContextMut<'_, StoreState>, (): ()) -> wasmtime::Result<(bool,)> {
    let observer = store.data().observer.as_ref();
    Ok((observer.is_some_and(|observer| observer.is_cancelled()),))
}
