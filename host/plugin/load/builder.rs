//! Builds generations: from a file to a plugin that is ready to serve, or to every reason why it is refused.
//! Cheap and harmless steps come first. Knows nothing of other plugins.

use super::{
    contract::{self, Exports},
    describe::describe,
    manifest::{self, Manifest},
};
use crate::{
    compile::{
        cache::Cache,
        compiler::{Compiled, Compiler},
        wasm_file::WasmFile,
    },
    diagnostic::Diagnostic,
    error::Error,
    generation::Generation,
    sandbox::{
        admission::GuestKind,
        capabilities::{Capabilities, Granted},
        engine::Engine,
        guest_log::LogSource,
        imports,
        linked_plugin::LinkedPlugin,
        store_state::StoreState,
        transfer,
    },
};
use hostel_config::{Config, Sandbox};
use hostel_runtime::health::Health;
use hostel_task::Name;
use std::{path::Path, sync::Arc, time::SystemTime};
use wasmtime::component::{Component, InstancePre};

/// Makes generations of files, for one node.
pub struct Builder {
    pub engine: Arc<Engine>,
    pub compiler: Arc<Compiler>,
    /// Whether log records of guests count that the node's log leaves out.
    pub counts_all_records: bool,
    config: Config,
    capabilities: Capabilities,
}

/// A component that can run `describe`, and the diagnostics that were found before.
struct Linked {
    pre: InstancePre<StoreState>,
    exports: Exports,
    diagnostics: Vec<Diagnostic>,
}

impl Builder {
    /// Makes the engine and the compiler. Plugins are lent `capabilities`.
    pub fn new(
        config: &Config,
        capabilities: Capabilities,
        health: &Health,
    ) -> Result<Self, Error> {
        let engine = Arc::new(Engine::new(config, health)?);
        let dir = config.node.data_dir.join("cache");
        let cache = Cache::open(dir.clone(), &engine.wasmtime);
        let cache = cache.inspect_err(|error| {
            let dir = dir.display();
            tracing::warn!("{dir} cannot be used, so plugins are compiled at each start: {error}");
        });
        let compiler = Compiler::new(&config.plugins, engine.clone(), cache.ok(), health)?;
        Ok(Self {
            engine,
            compiler: Arc::new(compiler),
            counts_all_records: false,
            config: config.clone(),
            capabilities,
        })
    }

    /// Reads `file` once, if it is no larger than the limit. Blocks.
    pub fn read(&self, file: &Path) -> Result<WasmFile, Diagnostic> {
        WasmFile::read(file, self.config.plugins.max_file_bytes)
    }

    /// The task types that this content had when it was last loaded. Blocks.
    pub fn recorded_types(&self, sha256: &str) -> Vec<Name> {
        let cache = self.compiler.cache();
        cache.map_or_else(Vec::new, |cache| cache.task_types(sha256))
    }

    /// Makes a generation of a file that was read, and records its task types.
    pub async fn make(&self, wasm: &WasmFile) -> Result<Generation, Vec<Diagnostic>> {
        let Compiled { component, .. } = self.compile(wasm).await.map_err(one)?;
        let generation = self.assemble(wasm, component).await?;
        let types = generation.task_types.iter().map(|one| one.name.clone());
        let types: Vec<Name> = types.collect();
        let (compiler, sha256) = (self.compiler.clone(), wasm.sha256.clone());
        let recorded = tokio::task::spawn_blocking(move || {
            let cache = compiler.cache();
            cache.map_or(Ok(()), |cache| cache.put_task_types(&sha256, &types))
        });
        if let Ok(Err(error)) = recorded.await {
            tracing::debug!("the task types of a plugin cannot be recorded: {error}");
        }
        Ok(generation)
    }

    pub async fn compile(&self, wasm: &WasmFile) -> Result<Compiled, Diagnostic> {
        self.compiler.compile(wasm).await
    }

    /// Makes a generation of a compiled component. Finds as many errors as it can, and returns the
    /// first of them.
    pub async fn assemble(
        &self,
        wasm: &WasmFile,
        component: Component,
    ) -> Result<Generation, Vec<Diagnostic>> {
        let assembled = self.generation(wasm, component).await;
        assembled.map_err(Diagnostic::first_of)
    }

    async fn generation(
        &self,
        wasm: &WasmFile,
        component: Component,
    ) -> Result<Generation, Vec<Diagnostic>> {
        let slots = self.engine.slots_of(&component);
        let Linked {
            pre,
            exports,
            diagnostics,
        } = self.link(&component)?;
        let slots = slots.map_err(|error| one(Diagnostic::new(error)))?;
        let manifest = self
            .describe(wasm, &pre, slots, exports, diagnostics)
            .await?;
        if !manifest.cut_timeouts.is_empty() {
            let types: Vec<&str> = manifest.cut_timeouts.iter().map(Name::as_str).collect();
            tracing::info!(
                plugin = %manifest.name,
                version = manifest.version,
                "timeouts cut to {} ms (plugins.max_timeout_ms): {}",
                self.config.plugins.max_timeout.as_millis(),
                types.join(", ")
            );
        }
        let handler = exports
            .task_handler
            .then(|| contract::handler_indices(&pre))
            .transpose()
            .map_err(one)?;
        let component = exports
            .component
            .then(|| contract::component_indices(&pre))
            .transpose()
            .map_err(one)?;
        let sandbox = self.sandbox(manifest.name.as_str());
        self.check_memory(&manifest.name, &sandbox, exports)?;
        let section = self.config.plugin.get(&manifest.name);
        let settings = section.map(|section| section.config.clone());
        Ok(Generation {
            plugin: LinkedPlugin {
                engine: self.engine.clone(),
                pre,
                slots,
                settings: Arc::new(settings.unwrap_or_default().into_iter().collect()),
                log_source: Arc::new(LogSource {
                    plugin: manifest.name.to_string(),
                    version: manifest.version.clone(),
                    max_log_bytes: sandbox.max_log_bytes,
                    counts_all: self.counts_all_records,
                }),
                max_transfer_bytes: transfer::max_bytes(&self.config, &sandbox),
                sandbox,
                granted: Some(Arc::new(Granted {
                    plugin: manifest.name.clone(),
                    capabilities: self.capabilities.clone(),
                })),
            },
            name: manifest.name,
            version: manifest.version,
            description: manifest.description,
            sha256: wasm.sha256.clone(),
            file: wasm.file.clone(),
            loaded_at: SystemTime::now(),
            task_types: manifest.task_types.into_iter().map(Arc::new).collect(),
            topics: manifest.topics,
            handler,
            component,
        })
    }

    /// Finds the errors of imports and exports together. An import that the node lacks becomes a trap,
    /// so that `describe` can run all the same and its diagnostics are found too.
    fn link(&self, component: &Component) -> Result<Linked, Vec<Diagnostic>> {
        let (exports, mut diagnostics) = contract::exports(&self.exports_of(component));
        let required = imports::required(&self.engine.wasmtime, component);
        let missing = required.iter().filter(|import| !import.provided);
        let missing = missing.map(|import| Diagnostic::new(imports::explain_missing(&import.name)));
        let diagnostics_of_exports = diagnostics.len();
        diagnostics.extend(missing);
        if !exports.manifest {
            return Err(diagnostics);
        }
        let linked = if diagnostics.len() == diagnostics_of_exports {
            self.engine.linker.instantiate_pre(component)
        } else {
            let mut linker = self.engine.linker.clone();
            linker
                .define_unknown_imports_as_traps(component)
                .and_then(|()| linker.instantiate_pre(component))
        };
        match linked {
            Ok(pre) => Ok(Linked {
                pre,
                exports,
                diagnostics,
            }),
            Err(_) if !diagnostics.is_empty() => Err(diagnostics),
            Err(error) => Err(one(Diagnostic::new(format!("does not link: {error:#}")))),
        }
    }

    /// The manifest of a plugin without `diagnostics`, or those together with the manifest's.
    async fn describe(
        &self,
        wasm: &WasmFile,
        pre: &InstancePre<StoreState>,
        slots: usize,
        exports: Exports,
        mut diagnostics: Vec<Diagnostic>,
    ) -> Result<Manifest, Vec<Diagnostic>> {
        // The name is unknown until then. Most files are called like their plugin.
        let stem = wasm.file.file_stem().unwrap_or_default().to_string_lossy();
        let mut sandbox = self.sandbox(&stem);
        // Whether the plugin's own limit fits is checked once its name is known.
        let total = self.engine.admission.total(GuestKind::Task);
        sandbox.max_memory_bytes = sandbox.max_memory_bytes.min(total.memory_bytes);
        let plugin = LinkedPlugin {
            engine: self.engine.clone(),
            pre: pre.clone(),
            slots,
            max_transfer_bytes: transfer::max_bytes(&self.config, &sandbox),
            sandbox,
            settings: Arc::default(),
            log_source: Arc::new(LogSource {
                plugin: stem.into_owned(),
                version: String::new(),
                max_log_bytes: self.config.plugins.sandbox.max_log_bytes,
                counts_all: self.counts_all_records,
            }),
            granted: None,
        };
        let described = describe(plugin, exports).await;
        diagnostics.extend(described.misfits);
        let manifest = match described.description {
            Ok(description) => manifest::check(description, exports, &self.config),
            // The diagnostics found so far may be why it failed.
            Err(_) if !diagnostics.is_empty() => Err(Vec::new()),
            Err(diagnostic) => Err(one(diagnostic)),
        };
        match manifest {
            Ok(manifest) if diagnostics.is_empty() => Ok(manifest),
            Ok(_) => Err(diagnostics),
            Err(found) => {
                diagnostics.extend(found);
                Err(diagnostics)
            }
        }
    }

    /// Refuses a plugin whose memory limit exceeds the memory of all guests of its kind.
    fn check_memory(
        &self,
        name: &Name,
        sandbox: &Sandbox,
        exports: Exports,
    ) -> Result<(), Vec<Diagnostic>> {
        let section = self.config.plugin.get(name);
        let setting = if section.is_some_and(|own| own.limits.max_memory_bytes.is_some()) {
            format!("plugin.{name}.limits.max_memory_bytes")
        } else {
            "plugins.sandbox.max_memory_bytes".to_owned()
        };
        let kinds = [
            exports.task_handler.then_some(GuestKind::Task),
            exports.component.then_some(GuestKind::Component),
        ];
        let never_fits = kinds.into_iter().flatten().filter_map(|kind| {
            let admission = &self.engine.admission;
            admission.never_fits(kind, sandbox.max_memory_bytes, &setting)
        });
        let diagnostics: Vec<_> = never_fits.map(Diagnostic::new).collect();
        if diagnostics.is_empty() {
            Ok(())
        } else {
            Err(diagnostics)
        }
    }

    /// The names of all exports in the package `hostel:plugin`.
    pub fn exports_of(&self, component: &Component) -> Vec<String> {
        contract::names(&self.engine.wasmtime, component)
    }

    /// The limits of the plugin called `name`.
    fn sandbox(&self, name: &str) -> Sandbox {
        self.config.sandbox(name)
    }
}

fn one(diagnostic: Diagnostic) -> Vec<Diagnostic> {
    vec![diagnostic]
}
