//! Makes generations: from a file's bytes to a plugin that is ready to serve, or to every reason
//! why it is not. The order is fixed, cheap and harmless steps first. Decides nothing about other
//! plugins; that is the catalog's.

use super::{
    Error, Fault,
    bindings::manifest,
    cache::Cache,
    compiler::{Compiled, Compiler},
    contract::{self, Exports},
    engine::Engine,
    gate::Kind,
    generation::Generation,
    guest::Guest,
    imports,
    journal::{Speaker, Subject},
    manifest as rules,
    outside::{Granted, Outside},
    program::{Errand, Program},
    stop::Stop,
};
use hostel_config::{Config, Sandbox};
use hostel_runtime::health::Health;
use hostel_task::Name;
use sha2::{Digest, Sha256};
use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Instant, SystemTime},
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use wasmtime::{
    Store,
    component::{Component, InstancePre},
};

/// What tells the kind of a file.
const HEAD_BYTES: usize = 8;
const READ_BYTES: usize = 64 << 10;

pub struct Workshop {
    pub engine: Arc<Engine>,
    pub compiler: Arc<Compiler>,
    config: Config,
    outside: Outside,
}

/// What one reading of a plugin file has shown. The content itself stays on disk: only the process
/// that compiles it takes it in.
#[derive(Debug, Clone)]
pub struct Wasm {
    pub file: PathBuf,
    /// The first bytes, which tell what kind of file it is.
    pub head: Vec<u8>,
    pub bytes: u64,
    /// In hex.
    pub sha256: String,
}

impl Wasm {
    pub fn open(&self) -> Result<File, Fault> {
        File::open(&self.file).map_err(unreadable)
    }
}

fn unreadable(error: std::io::Error) -> Fault {
    Fault::passing(format!("cannot be read: {error}"))
}

/// A component that can be asked to describe itself, and what was found wrong with it until then.
struct Linked {
    pre: InstancePre<Guest>,
    exports: Exports,
    faults: Vec<Fault>,
}

/// What asking for the description has shown.
struct Described {
    /// Interfaces of ours that have another shape.
    misfits: Vec<Fault>,
    description: Result<manifest::Description, Fault>,
}

impl Workshop {
    /// `outside` is what plugins are given beyond their sandbox.
    pub fn new(config: &Config, outside: Outside, health: &Health) -> Result<Self, Error> {
        let engine = Arc::new(Engine::new(config, health)?);
        let dir = config.node.data_dir.join("cache");
        let cache = Cache::open(dir.clone(), &engine.wasmtime);
        let cache = cache.inspect_err(|error| {
            let dir = dir.display();
            tracing::warn!("{dir} cannot be used, so plugins are compiled anew: {error}");
        });
        Ok(Self {
            outside,
            compiler: Arc::new(Compiler::new(
                &config.plugins,
                engine.clone(),
                cache.ok(),
                health,
            )?),
            engine,
            config: config.clone(),
        })
    }

    /// Reads `file` once, if it is no larger than it may be. Blocks.
    pub fn read(&self, file: &Path) -> Result<Wasm, Fault> {
        let max = self.config.plugins.max_file_bytes;
        let mut content = File::open(file)
            .map_err(unreadable)?
            .take(max.saturating_add(1));
        let mut hasher = Sha256::new();
        let mut wasm = Wasm {
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
            let room = HEAD_BYTES - wasm.head.len();
            wasm.head.extend(piece[..read].iter().take(room));
            wasm.bytes += read as u64;
            hasher.update(&piece[..read]);
        }
        if wasm.bytes > max {
            return Err(Fault::new(format!(
                "has more than {max} bytes (plugins.max_file_bytes)"
            )));
        }
        wasm.sha256 = hex(&hasher.finalize());
        Ok(wasm)
    }

    /// The task types that this content had when it last loaded. Blocks.
    pub fn recorded_types(&self, sha256: &str) -> Vec<Name> {
        let cache = self.compiler.cache();
        cache.map_or_else(Vec::new, |cache| cache.task_types(sha256))
    }

    /// Everything after reading.
    pub async fn make(&self, wasm: &Wasm) -> Result<Generation, Vec<Fault>> {
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

    pub async fn compile(&self, wasm: &Wasm) -> Result<Compiled, Fault> {
        self.compiler.compile(wasm).await
    }

    /// Everything after compiling. As many faults as can be found are found, and the first of them
    /// told.
    pub async fn assemble(
        &self,
        wasm: &Wasm,
        component: Component,
    ) -> Result<Generation, Vec<Fault>> {
        let assembled = self.generation(wasm, component).await;
        assembled.map_err(Fault::first_of)
    }

    async fn generation(
        &self,
        wasm: &Wasm,
        component: Component,
    ) -> Result<Generation, Vec<Fault>> {
        let Linked {
            pre,
            exports,
            mut faults,
        } = self.link(&component)?;
        let slots = self
            .engine
            .slots_of(&component)
            .map_err(|e| one(Fault::new(e)))?;

        // The name is not known yet; operators call a plugin's file as they call the plugin.
        let stem = wasm.file.file_stem().unwrap_or_default().to_string_lossy();
        let mut sandbox = self.sandbox(&stem);
        // Whether its own limit fits is seen once its name is known.
        let total = self.engine.gate.total_bytes(Kind::Task);
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
        let described = describe(describing, exports).await;
        faults.extend(described.misfits);
        let manifest = match described.description {
            Ok(description) => rules::check(description, exports, &self.config),
            // What is wrong already may be why it failed.
            Err(_) if !faults.is_empty() => Err(Vec::new()),
            Err(fault) => Err(one(fault)),
        };
        let manifest = match manifest {
            Ok(manifest) if faults.is_empty() => manifest,
            Ok(_) => return Err(faults),
            Err(found) => {
                faults.extend(found);
                return Err(faults);
            }
        };
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
        let section = self.config.plugin.get(&manifest.name);
        let own = section.is_some_and(|section| section.limits.max_memory_bytes.is_some());
        let setting = match own {
            true => format!("plugin.{}.limits.max_memory_bytes", manifest.name),
            false => "plugins.sandbox.max_memory_bytes".to_owned(),
        };
        let kinds = [
            handler.is_some().then_some(Kind::Task),
            component.is_some().then_some(Kind::Component),
        ];
        let never_fits = kinds.into_iter().flatten().filter_map(|kind| {
            let gate = &self.engine.gate;
            gate.refuse(kind, sandbox.max_memory_bytes, &setting)
        });
        let faults: Vec<_> = never_fits.map(Fault::new).collect();
        if !faults.is_empty() {
            return Err(faults);
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
            sha256: wasm.sha256.clone(),
            file: wasm.file.clone(),
            loaded_at: SystemTime::now(),
            task_types: manifest.task_types.into_iter().map(Arc::new).collect(),
            topics: manifest.topics,
            handler,
            component,
        })
    }

    /// Finds the faults of imports and of exports together. What the component lacks is a trap in its
    /// place, so that it can be asked to describe itself all the same and one look shows every fault.
    fn link(&self, component: &Component) -> Result<Linked, Vec<Fault>> {
        let (exports, mut faults) = contract::exports(&self.our_exports(component));
        let required = imports::required(&self.engine.wasmtime, component);
        let missing = required.iter().filter(|import| !import.provided);
        let missing = missing.map(|import| Fault::new(imports::explain_missing(&import.name)));
        let known = faults.len();
        faults.extend(missing);
        if !exports.manifest {
            return Err(faults);
        }
        let linked = if faults.len() == known {
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
                faults,
            }),
            Err(_) if !faults.is_empty() => Err(faults),
            Err(error) => Err(one(Fault::new(format!("does not link: {error:#}")))),
        }
    }

    /// The names of all exports in our package.
    pub fn our_exports(&self, component: &Component) -> Vec<String> {
        contract::names(&self.engine.wasmtime, component)
    }

    /// The limits of the plugin called `name`.
    fn sandbox(&self, name: &str) -> Sandbox {
        self.config.sandbox(name)
    }
}

/// Asks the plugin what it is, and finds out on the same instance whether every export has the
/// shape that the node expects.
async fn describe(program: Program, exports: Exports) -> Described {
    let guests = program.engine.guests().clone();
    let describing = guests.spawn(async move {
        let timeout = program.sandbox.describe_timeout;
        let mut misfits = Vec::new();
        let work = async |store: &mut Store<Guest>| {
            let instance = program.pre.instantiate_async(&mut *store).await?;
            misfits = contract::misfits(store, &program.pre, &instance, exports);
            let indices = manifest::GuestIndices::new(&program.pre)?;
            let guest = indices.load(&mut *store, &instance)?;
            guest.call_describe(&mut *store).await
        };
        let never = CancellationToken::new();
        let described = match program.admit(Kind::Task, timeout, &never).await {
            Err(stop) => Err(stop),
            Ok(mut tenant) => {
                let errand = Errand {
                    subject: Subject::Plugin,
                    timeout,
                    since: Instant::now(),
                    cancel: &never,
                };
                program.call(&mut tenant, errand, work).await
            }
        };
        (misfits, described)
    });
    let (misfits, described) = match AbortOnDropHandle::new(describing).await {
        Ok(described) => described,
        Err(_) => (Vec::new(), Err(Stop::Cancelled)),
    };
    let description = described.map_err(|stop| match stop {
        Stop::Timeout(after) => Fault::passing(format!(
            "failed to describe itself within {} ms (plugins.sandbox.describe_timeout_ms)",
            after.as_millis()
        )),
        Stop::NoRoom(_) => Fault::passing(format!("could not be asked to describe itself: {stop}")),
        Stop::Cancelled => Fault::passing("the node is stopping"),
        stop => Fault::new(format!("failed to describe itself: {stop}")),
    });
    Described {
        misfits,
        description,
    }
}

fn one(fault: Fault) -> Vec<Fault> {
    vec![fault]
}

/// As hashes are written.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
