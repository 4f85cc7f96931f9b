//! The interfaces that the node provides to guests: the linker, and explanations of imports that it
//! does not provide.

use super::{
    bindings::{Level, messaging},
    keyvalue,
    store_state::StoreState,
    tasks,
};
use wasmtime::{
    Engine, StoreContextMut,
    component::{Component, HasSelf, Linker, WasmStr},
};

/// Every interface that a guest may import. Patches of WASI 0.2, and of our own 0.1, are
/// interchangeable; drafts match exactly.
pub const PROVIDED: &[&str] = &[
    "hostel:plugin/messaging@0.1.0",
    "hostel:plugin/tasks@0.1.0",
    "wasi:cli/environment@0.2.12",
    "wasi:cli/exit@0.2.12",
    "wasi:cli/stderr@0.2.12",
    "wasi:cli/stdin@0.2.12",
    "wasi:cli/stdout@0.2.12",
    "wasi:cli/terminal-input@0.2.12",
    "wasi:cli/terminal-output@0.2.12",
    "wasi:cli/terminal-stderr@0.2.12",
    "wasi:cli/terminal-stdin@0.2.12",
    "wasi:cli/terminal-stdout@0.2.12",
    "wasi:clocks/monotonic-clock@0.2.12",
    "wasi:clocks/wall-clock@0.2.12",
    "wasi:config/store@0.2.0-rc.1",
    "wasi:filesystem/preopens@0.2.12",
    "wasi:filesystem/types@0.2.12",
    "wasi:io/error@0.2.12",
    "wasi:io/poll@0.2.12",
    "wasi:io/streams@0.2.12",
    "wasi:keyvalue/atomics@0.2.0-draft",
    "wasi:keyvalue/batch@0.2.0-draft",
    "wasi:keyvalue/store@0.2.0-draft",
    "wasi:logging/logging@0.1.0-draft",
    "wasi:random/insecure-seed@0.2.12",
    "wasi:random/insecure@0.2.12",
    "wasi:random/random@0.2.12",
    "wasi:sockets/instance-network@0.2.12",
    "wasi:sockets/ip-name-lookup@0.2.12",
    "wasi:sockets/network@0.2.12",
    "wasi:sockets/tcp-create-socket@0.2.12",
    "wasi:sockets/tcp@0.2.12",
    "wasi:sockets/udp-create-socket@0.2.12",
    "wasi:sockets/udp@0.2.12",
];

/// An interface that a component imports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Import {
    /// The name of the interface, with its version.
    pub name: String,
    /// Whether this node provides it.
    pub provided: bool,
}

pub fn linker(engine: &Engine) -> wasmtime::Result<Linker<StoreState>> {
    let mut linker = Linker::new(engine);
    wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
    wasmtime_wasi_config::add_to_linker(&mut linker, StoreState::settings)?;
    keyvalue::add_to_linker(&mut linker)?;
    messaging::add_to_linker::<_, HasSelf<_>>(&mut linker, |guest| guest)?;
    // Not through the generated trait, which would copy a message before it can be cut.
    linker
        .instance("wasi:logging/logging@0.1.0-draft")?
        .func_wrap("log", log)?;
    tasks::add_to_linker(&mut linker)?;
    Ok(linker)
}

fn log(
    mut store: StoreContextMut<'_, StoreState>,
    (level, context, message): (Level, WasmStr, WasmStr),
) -> wasmtime::Result<()> {
    let log = &store.data().log;
    if log.is_cut_off() && level != Level::Critical {
        return Ok(());
    }
    log.log(level, &context.to_str(&store)?, &message.to_str(&store)?);
    if level == Level::Critical {
        store.data_mut().limiter.reason_given();
    }
    Ok(())
}

/// The imports of `component`, in its order.
pub fn required(engine: &Engine, component: &Component) -> Vec<Import> {
    let component_type = component.component_type();
    let imports = component_type.imports(engine);
    imports
        .map(|(name, _)| Import {
            name: name.to_owned(),
            provided: provides(name),
        })
        .collect()
}

/// Why `import` is not provided, and what to do.
pub fn explain_missing(import: &str) -> String {
    let (interface, version) = split(import);
    let other = PROVIDED.iter().find(|known| split(known).0 == interface);
    match other {
        Some(known) => format!(
            "imports {import}; this node offers {interface} in version {}: \
             rebuild against that version instead of {version}",
            split(known).1
        ),
        None if import.contains("wbindgen") || interface == "wbg" => format!(
            "imports {import}, which is of wasm-bindgen and needs a JavaScript host: leave out the \
             crate that brings it in"
        ),
        None if interface.starts_with("wasi:http/") => {
            format!("imports {import}, which this node does not offer: plugins have no network")
        }
        None => format!("imports {import}, which this node does not offer: remove that use"),
    }
}

fn provides(import: &str) -> bool {
    let (interface, version) = split(import);
    PROVIDED.iter().any(|known| {
        let (known_interface, known_version) = split(known);
        known_interface == interface && compatible(known_version, version)
    })
}

pub fn split(name: &str) -> (&str, &str) {
    name.split_once('@').unwrap_or((name, "none"))
}

/// Whether wasmtime's linker takes one version for the other: 0.2.x matches every 0.2.y, a
/// pre-release only itself.
pub fn compatible(known: &str, wanted: &str) -> bool {
    let minor = |version: &str| {
        let (minor, patch) = version.rsplit_once('.')?;
        patch.parse::<u32>().ok()?;
        Some(minor.to_owned())
    };
    known == wanted || (minor(known).is_some() && minor(known) == minor(wanted))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_match_as_in_the_linker() {
        assert!(provides("wasi:io/streams@0.2.0"));
        assert!(provides("wasi:io/streams@0.2.6"));
        assert!(!provides("wasi:io/streams@0.3.0"));
        assert!(!provides("wasi:config/store@0.2.0-draft"));
        assert!(!provides("wasi:http/types@0.2.0"));
    }

    #[test]
    fn the_linker_has_exactly_the_provided_interfaces() {
        let engine = Engine::new(&wasmtime::Config::new()).unwrap();
        let linker = linker(&engine).unwrap();
        // An import of the wrong kind fails differently if the interface is there.
        let is_linked = |name: &str| {
            let wat = format!(r#"(component (import "{name}" (func)))"#);
            let component = Component::new(&engine, wat).unwrap();
            let error = linker.instantiate_pre(&component).err().unwrap();
            format!("{error:#}").contains("found instance")
        };
        for known in PROVIDED {
            assert!(is_linked(known), "{known} is in PROVIDED and not linked");
        }
        assert!(!is_linked("wasi:nn/tensor@0.2.0"));
        assert!(explain_missing("wasi:config/store@0.2.0-draft").contains("0.2.0-rc.1"));
    }
}
