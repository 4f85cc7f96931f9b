//! Makes generations: from a file's bytes to a plugin that is ready to serve, or to every reason
//! why it is not. The order is fixed, cheap and harmless steps first. Decides nothing about other
//! plugins; that is the catalog's.

use super::{
    Error, Fault,
    bindings::{component, manifest, message_handler, task_handler},
    cache::Cache,
    compiler::Compiler,
    engine::Engine,
    generation::{ComponentIndices, Generation},
    guest::Guest,
    imports,
    journal::{Speaker, Subject},
    manifest as rules,
    outside::{Granted, Outside},
    program::{Errand, Program},
    stop::Stop,
};
use crate::{
    config::{Config, Sandbox, SandboxOverrides},
    task::Name,
};
use sha2::{Digest, Sha256};
use std::{fs::File, io::Read, path::Path, sync::Arc, time::SystemTime};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use wasmtime::{
    Store,
    component::{Component, InstancePre},
};

const MANIFEST: &str = "hostel:plugin/manifest@0.1.0";
const TASK_HANDLER: &str = "hostel:plugin/task-handler@0.1.0";
const COMPONENT: &str = "hostel:plugin/component@0.1.0";
const MESSAGE_HANDLER: &str = "hostel:plugin/message-handler@0.1.0";
const OURS: &str = "hostel:plugin/";

pub struct Workshop {
    pub engine: Arc<Engine>,
    pub compiler: Arc<Compiler>,
    config: Config,
    outside: Outside,
}

/// A plugin file's content.
#[derive(Clone)]
pub struct Wasm {
    pub bytes: Arc<[u8]>,
    /// In hex.
    pub sha256: String,
}

/// Which of our interfaces a component has.
#[derive(Debug, Clone, Copy, Default)]
pub struct Exports {
    pub manifest: bool,
    pub task_handler: bool,
    /// `component` and `message-handler`, which go together.
    pub component: bool,
}

impl Workshop {
    /// `outside` is what plugins are given beyond their sandbox.
    pub fn new(config: &Config, outside: Outside) -> Result<Self, Error> {
        let engine = Arc::new(Engine::new(config)?);
        let dir = config.node.data_dir.join("cache");
        let cache = Cache::open(dir.clone(), &engine.wasmtime);
        let cache = cache.inspect_err(|error| {
            let dir = dir.display();
            tracing::warn!("{dir} cannot be used, so plugins are compiled anew: {error}");
        });
        Self::with(config, engine, cache.ok(), outside)
    }

    /// Leaves no trace on disk, and gives plugins nothing.
    pub fn without_cache(config: &Config) -> Result<Self, Error> {
        let engine = Arc::new(Engine::new(config)?);
        Self::with(config, engine, None, Outside::default())
    }

    fn with(
        config: &Config,
        engine: Arc<Engine>,
        cache: Option<Cache>,
        outside: Outside,
    ) -> Result<Self, Error> {
        Ok(Self {
            outside,
            compiler: Arc::new(Compiler::new(config, engine.clone(), cache)?),
            engine,
            config: config.clone(),
        })
    }

    /// Reads `file`, if it is no larger than it may be. Blocks.
    pub fn read(&self, file: &Path) -> Result<Wasm, Fault> {
        let unreadable = |error| Fault::passing(format!("cannot be read: {error}"));
        let max = self.config.plugins.max_file_bytes;
        let mut bytes = Vec::new();
        File::open(file)
            .and_then(|file| file.take(max.saturating_add(1)).read_to_end(&mut bytes))
            .map_err(unreadable)?;
        if bytes.len() as u64 > max {
            return Err(Fault::new(format!(
                "has more than {max} bytes (plugins.max_file_bytes)"
            )));
        }
        let sha256 = hex(&Sha256::digest(&bytes));
        let bytes = bytes.into();
        Ok(Wasm { bytes, sha256 })
    }

    /// Everything after reading.
    pub async fn make(&self, file: &Path, wasm: Wasm) -> Result<Generation, Vec<Fault>> {
        let component = self.compile(&wasm).await.map_err(one)?;
        self.assemble(file, wasm.sha256, component).await
    }

    pub async fn compile(&self, wasm: &Wasm) -> Result<Component, Fault> {
        let Wasm { bytes, sha256 } = wasm.clone();
        self.compiler.compile(bytes, sha256).await
    }

    /// Everything after compiling.
    pub async fn assemble(
        &self,
        file: &Path,
        sha256: String,
        component: Component,
    ) -> Result<Generation, Vec<Fault>> {
        let (pre, exports) = self.link(&component)?;
        let slots = self
            .engine
            .slots_of(&component)
            .map_err(|e| one(Fault::new(e)))?;

        // The name is not known yet; operators call a plugin's file as they call the plugin.
        let stem = file.file_stem().unwrap_or_default().to_string_lossy();
        let mut sandbox = self.sandbox(&stem);
        // Whether its own limit fits is seen once its name is known.
        let total = self.engine.gate.total_memory_bytes();
        sandbox.max_memory_bytes = sandbox.max_memory_bytes.min(total);
        let describing = Program {
            engine: self.engine.clone(),
            pre: pre.clone(),
            slots,
            sandbox,
            settings: Arc::default(),
            speaker: Arc::new(Speaker {
                plugin: stem.into_owned(),
                version: String::new(),
                max_log_bytes: self.config.plugins.sandbox.max_log_bytes,
            }),
            granted: None,
        };
        let description = describe(describing, exports).await.map_err(one)?;
        let manifest = rules::check(description, exports, &self.config)?;
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
            .then(|| task_handler::GuestIndices::new(&pre))
            .transpose()
            .map_err(|error| one(misfit(TASK_HANDLER, &error)))?;
        let component = exports
            .component
            .then(|| component_indices(&pre))
            .transpose();
        let component = component.map_err(one)?;
        let sandbox = self.sandbox(manifest.name.as_str());
        let section = self.config.plugin.get(&manifest.name);
        let own = section.is_some_and(|section| section.limits.max_memory_bytes.is_some());
        let setting = match own {
            true => format!("plugin.{}.limits.max_memory_bytes", manifest.name),
            false => "plugins.sandbox.max_memory_bytes".to_owned(),
        };
        if let Some(error) = self.engine.gate.refuse(sandbox.max_memory_bytes, &setting) {
            return Err(one(Fault::new(error)));
        }
        let settings = section.map(|section| section.config.clone());
        Ok(Generation {
            program: Program {
                engine: self.engine.clone(),
                pre,
                slots,
                settings: Arc::new(settings.unwrap_or_default().into_iter().collect()),
                speaker: Arc::new(Speaker {
                    plugin: manifest.name.to_string(),
                    version: manifest.version.clone(),
                    max_log_bytes: sandbox.max_log_bytes,
                }),
                sandbox,
                granted: Some(Arc::new(Granted {
                    plugin: manifest.name.clone(),
                    outside: self.outside.clone(),
                })),
            },
            name: manifest.name,
            version: manifest.version,
            description: manifest.description,
            sha256,
            file: file.to_owned(),
            loaded_at: SystemTime::now(),
            task_types: manifest.task_types.into_iter().map(Arc::new).collect(),
            topics: manifest.topics,
            handler,
            component,
        })
    }

    /// Faults of imports and of exports together.
    fn link(&self, component: &Component) -> Result<(InstancePre<Guest>, Exports), Vec<Fault>> {
        let mut faults = Vec::new();
        let exports = self
            .exports(component)
            .map_err(|found| faults.extend(found))
            .unwrap_or_default();
        let required = imports::required(&self.engine.wasmtime, component);
        let missing = required.iter().filter(|import| !import.provided);
        faults.extend(missing.map(|import| Fault::new(imports::explain_missing(&import.name))));
        if !faults.is_empty() {
            return Err(faults);
        }
        let linked = self.engine.linker.instantiate_pre(component);
        let pre = linked.map_err(|error| one(Fault::new(format!("does not link: {error:#}"))))?;
        Ok((pre, exports))
    }

    pub fn exports(&self, component: &Component) -> Result<Exports, Vec<Fault>> {
        let mut found = Exports::default();
        let mut faults = Vec::new();
        let mut halves = Vec::new();
        for name in self.our_exports(component) {
            match name.as_str() {
                MANIFEST => found.manifest = true,
                TASK_HANDLER => found.task_handler = true,
                COMPONENT | MESSAGE_HANDLER => halves.push(name),
                _ => faults.push(Fault::new(format!(
                    "exports {name}, which this node does not know (it knows {MANIFEST}, \
                     {TASK_HANDLER}, {COMPONENT} and {MESSAGE_HANDLER}): rebuild with a hostel-sdk of this node's version"
                ))),
            }
        }
        found.component = halves.len() == 2;
        if let [half] = &halves[..] {
            faults.push(Fault::new(format!(
                "exports {half} alone: a component exports both {COMPONENT} and {MESSAGE_HANDLER}"
            )));
        }
        if !found.manifest && faults.is_empty() {
            faults.push(Fault::new(format!(
                "does not export {MANIFEST}, so it is no Hostel plugin: write one with hostel-sdk, \
                 or export that interface"
            )));
        }
        if faults.is_empty() {
            Ok(found)
        } else {
            Err(faults)
        }
    }

    /// The names of all exports in our package.
    pub fn our_exports(&self, component: &Component) -> Vec<String> {
        let component_type = component.component_type();
        let exports = component_type.exports(&self.engine.wasmtime);
        exports
            .map(|(name, _)| name.to_owned())
            .filter(|name| name.starts_with(OURS))
            .collect()
    }

    /// The limits of the plugin called `name`.
    fn sandbox(&self, name: &str) -> Sandbox {
        let general = &self.config.plugins.sandbox;
        let none = SandboxOverrides::default();
        let section = self.config.plugin.get(name);
        let own = section.map_or(&none, |section| &section.limits);
        Sandbox {
            max_memory_bytes: own.max_memory_bytes.unwrap_or(general.max_memory_bytes),
            max_table_elements: own.max_table_elements.unwrap_or(general.max_table_elements),
            max_cpu: own.max_cpu.unwrap_or(general.max_cpu),
            max_result_bytes: own.max_result_bytes.unwrap_or(general.max_result_bytes),
            max_log_bytes: own.max_log_bytes.unwrap_or(general.max_log_bytes),
            max_messages: own.max_messages.unwrap_or(general.max_messages),
            describe_timeout: own.describe_timeout.unwrap_or(general.describe_timeout),
            timeout: general.timeout,
        }
    }
}

/// Asks the plugin what it is, and finds out on the same instance whether every export has the
/// shape that the node expects.
async fn describe(program: Program, exports: Exports) -> Result<manifest::Description, Fault> {
    let guests = program.engine.guests().clone();
    let describing = guests.spawn(async move {
        let timeout = program.sandbox.describe_timeout;
        let work = async |store: &mut Store<Guest>| {
            let instance = program.pre.instantiate_async(&mut *store).await?;
            let indices = manifest::GuestIndices::new(&program.pre)?;
            let guest = match indices.load(&mut *store, &instance) {
                Ok(guest) => guest,
                Err(error) => return Ok(Err(misfit(MANIFEST, &error))),
            };
            if exports.task_handler
                && let Err(error) = task_handler::GuestIndices::new(&program.pre)
                    .and_then(|indices| indices.load(&mut *store, &instance))
            {
                return Ok(Err(misfit(TASK_HANDLER, &error)));
            }
            if exports.component {
                let indices = match component_indices(&program.pre) {
                    Ok(indices) => indices,
                    Err(fault) => return Ok(Err(fault)),
                };
                if let Err(error) = indices.life.load(&mut *store, &instance) {
                    return Ok(Err(misfit(COMPONENT, &error)));
                }
                if let Err(error) = indices.messages.load(&mut *store, &instance) {
                    return Ok(Err(misfit(MESSAGE_HANDLER, &error)));
                }
            }
            guest.call_describe(&mut *store).await.map(Ok)
        };
        let never = CancellationToken::new();
        let admitted = tokio::time::timeout(timeout, program.admit(&never)).await;
        let mut tenant = admitted.ok().flatten().ok_or(Stop::NoRoom(timeout))?;
        let errand = Errand {
            subject: Subject::Plugin,
            timeout,
            cancel: &never,
        };
        program.call(&mut tenant, errand, work).await
    });
    match AbortOnDropHandle::new(describing).await {
        Ok(Ok(described)) => described,
        Ok(Err(Stop::Timeout(after))) => Err(Fault::passing(format!(
            "failed to describe itself within {} ms (plugins.sandbox.describe_timeout_ms)",
            after.as_millis()
        ))),
        Ok(Err(stop @ Stop::NoRoom(_))) => Err(Fault::passing(format!(
            "could not be asked to describe itself: {stop}"
        ))),
        Ok(Err(stop)) => Err(Fault::new(format!("failed to describe itself: {stop}"))),
        Err(_) => Err(Fault::passing("the node is stopping")),
    }
}

fn component_indices(pre: &InstancePre<Guest>) -> Result<ComponentIndices, Fault> {
    Ok(ComponentIndices {
        life: component::GuestIndices::new(pre).map_err(|error| misfit(COMPONENT, &error))?,
        messages: message_handler::GuestIndices::new(pre)
            .map_err(|error| misfit(MESSAGE_HANDLER, &error))?,
    })
}

fn misfit(interface: &str, error: &wasmtime::Error) -> Fault {
    Fault::new(format!(
        "its {interface} differs from the node's: {error:#}; rebuild with a hostel-sdk of this \
         node's version"
    ))
}

fn one(fault: Fault) -> Vec<Fault> {
    vec![fault]
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
