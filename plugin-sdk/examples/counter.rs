//! A component: one instance a node, which keeps its state in `&mut self` and what must last in a store.

use hostel_sdk::prelude::*;

struct Counter {
    count: u64,
    store: kv::Store,
}

impl Component for Counter {
    type In = String;
    type Out = String;

    fn start() -> Result<Self> {
        let store = kv::open("counter")?;
        let Json(count) = store.get("count")?.unwrap_or_default();
        Ok(Self { count, store })
    }

    fn on_message(&mut self, name: String, _: &Message) -> Result<String> {
        self.count += 1;
        self.store.set("count", Json(self.count))?;
        Ok(format!("{name} is number {}", self.count))
    }
}

hostel_sdk::plugin! {
    component = Counter,
}
