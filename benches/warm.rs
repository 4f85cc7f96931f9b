//! The limit of a component: repeated calls of one warm instance in wasmtime alone, with the engine
//! settings of a node.

use crate::load::PAYLOAD_BYTES;
use hostel::{Config, plugin::engine_settings};
use std::{path::Path, time::Instant};
use wasmtime::{
    Engine, Store,
    component::{Component, InstancePre, Linker},
};

mod bindings {
    wasmtime::component::bindgen!({
        path: "wit",
        world: "is-component",
        ownership: Borrowing { duplicate_if_necessary: true },
        exports: { default: async },
    });
}
use bindings::exports::hostel::plugin::{component, message_handler};

const CALLS: u32 = 100_000;
const PAYLOAD: [u8; PAYLOAD_BYTES] = [7; PAYLOAD_BYTES];

pub struct Warm {
    engine: Engine,
    pre: InstancePre<()>,
}

impl Warm {
    pub fn new(config: &Config, file: &Path) -> Self {
        let engine = Engine::new(&engine_settings(config)).expect("an engine");
        let component = Component::from_file(&engine, file).expect("a component");
        let mut linker = Linker::new(&engine);
        // The component calls none of its imports.
        linker
            .define_unknown_imports_as_traps(&component)
            .expect("imports");
        let pre = linker.instantiate_pre(&component).expect("a component");
        Self { engine, pre }
    }

    /// Measures the calls of `on-message` a second.
    pub async fn per_second(self) -> f64 {
        let mut store = Store::new(&self.engine, ());
        store.set_epoch_deadline(u64::MAX / 2);
        let instance = self.pre.instantiate_async(&mut store).await;
        let instance = instance.expect("an instance");
        let life = component::GuestIndices::new(&self.pre).expect("a component");
        let life = life.load(&mut store, &instance).expect("a component");
        life.call_start(&mut store)
            .await
            .expect("a call")
            .expect("a start");
        let handler = message_handler::GuestIndices::new(&self.pre).expect("a handler");
        let handler = handler.load(&mut store, &instance).expect("a handler");
        let begin = Instant::now();
        for _ in 0..CALLS {
            let message = message_handler::Message {
                id: "one",
                sender: "",
                to: "parrot",
                message_type: "",
                payload: &PAYLOAD,
                in_reply_to: "",
            };
            let answer = handler.call_on_message(&mut store, message).await;
            let answer = answer.expect("a call").expect("no error");
            assert_eq!(answer.as_deref(), Some(&PAYLOAD[..]));
        }
        f64::from(CALLS) / begin.elapsed().as_secs_f64()
    }
}
