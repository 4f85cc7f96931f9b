//! `wasi:keyvalue` for guests: each call becomes one operation on the key-value store in the plugin's
//! own name, and each failure a text for the plugin's author. Storage and limits are in
//! `hostel_keyvalue`.

use super::{
    bindings::{
        KeyValueError,
        keyvalue::{
            atomics, batch,
            store::{self, Error, KeyResponse},
        },
    },
    store_state::StoreState,
};
use hostel_keyvalue::{self as keyvalue, Bucket, Change, KeyValue};
use hostel_runtime::log_limit::LogLimit;
use hostel_task::Name;
use wasmtime::component::{HasSelf, Linker, Resource, ResourceTableError};

type Reply<T> = Result<T, KeyValueError>;

pub fn add_to_linker(linker: &mut Linker<StoreState>) -> wasmtime::Result<()> {
    store::add_to_linker::<_, HasSelf<StoreState>>(linker, |guest| guest)?;
    atomics::add_to_linker::<_, HasSelf<StoreState>>(linker, |guest| guest)?;
    batch::add_to_linker::<_, HasSelf<StoreState>>(linker, |guest| guest)
}

impl StoreState {
    /// The store, and the plugin in whose name it is used.
    fn store(&self) -> Reply<(&dyn KeyValue, &Name)> {
        let store = self.granted.as_ref().and_then(|granted| {
            let keyvalue = granted.capabilities.keyvalue.as_deref()?;
            Some((keyvalue, &granted.plugin))
        });
        store.ok_or(KeyValueError::Returned(Error::AccessDenied))
    }

    /// The store, and the bucket of `handle` in it.
    fn bucket(&self, handle: &Resource<Bucket>) -> Reply<(&dyn KeyValue, &Bucket)> {
        Ok((self.store()?.0, self.resources.get(handle)?))
    }

    async fn change(&mut self, handle: &Resource<Bucket>, changes: Vec<Change>) -> Reply<()> {
        let (keyvalue, bucket) = self.bucket(handle)?;
        Ok(keyvalue.apply(bucket, changes).await?)
    }
}

impl store::Host for StoreState {
    async fn open(&mut self, identifier: String) -> Reply<Resource<Bucket>> {
        let (keyvalue, plugin) = self.store()?;
        let bucket = keyvalue.bucket(plugin, &identifier)?;
        Ok(self.resources.push(bucket)?)
    }

    fn convert_error(&mut self, error: KeyValueError) -> wasmtime::Result<Error> {
        match error {
            KeyValueError::Returned(error) => Ok(error),
            KeyValueError::Trap(error) => Err(error),
        }
    }
}

impl store::HostBucket for StoreState {
    async fn get(&mut self, handle: Resource<Bucket>, key: String) -> Reply<Option<Vec<u8>>> {
        let (keyvalue, bucket) = self.bucket(&handle)?;
        let values = keyvalue.get(bucket, vec![key]).await?;
        Ok(values.into_iter().next().flatten())
    }

    async fn set(&mut self, handle: Resource<Bucket>, key: String, value: Vec<u8>) -> Reply<()> {
        self.change(&handle, vec![Change::Set { key, value }]).await
    }

    async fn delete(&mut self, handle: Resource<Bucket>, key: String) -> Reply<()> {
        self.change(&handle, vec![Change::Delete { key }]).await
    }

    async fn exists(&mut self, handle: Resource<Bucket>, key: String) -> Reply<bool> {
        let (keyvalue, bucket) = self.bucket(&handle)?;
        let there = keyvalue.exists(bucket, vec![key]).await?;
        Ok(there.first() == Some(&true))
    }

    async fn list_keys(
        &mut self,
        handle: Resource<Bucket>,
        cursor: Option<u64>,
    ) -> Reply<KeyResponse> {
        let (keyvalue, bucket) = self.bucket(&handle)?;
        let page = keyvalue.list(bucket, cursor).await?;
        Ok(KeyResponse {
            keys: page.keys,
            cursor: page.next,
        })
    }

    async fn drop(&mut self, handle: Resource<Bucket>) -> wasmtime::Result<()> {
        self.resources.delete(handle)?;
        Ok(())
    }
}

impl atomics::Host for StoreState {
    async fn increment(&mut self, handle: Resource<Bucket>, key: String, delta: u64) -> Reply<u64> {
        let (keyvalue, bucket) = self.bucket(&handle)?;
        Ok(keyvalue.increment(bucket, key, delta).await?)
    }
}

impl batch::Host for StoreState {
    async fn get_many(
        &mut self,
        handle: Resource<Bucket>,
        keys: Vec<String>,
    ) -> Reply<Vec<Option<(String, Vec<u8>)>>> {
        let (keyvalue, bucket) = self.bucket(&handle)?;
        let values = keyvalue.get(bucket, keys.clone()).await?;
        let pairs = keys.into_iter().zip(values);
        Ok(pairs.map(|(key, value)| Some((key, value?))).collect())
    }

    async fn set_many(
        &mut self,
        handle: Resource<Bucket>,
        pairs: Vec<(String, Vec<u8>)>,
    ) -> Reply<()> {
        let set = |(key, value)| Change::Set { key, value };
        let changes = pairs.into_iter().map(set).collect();
        self.change(&handle, changes).await
    }

    async fn delete_many(&mut self, handle: Resource<Bucket>, keys: Vec<String>) -> Reply<()> {
        let delete = |key| Change::Delete { key };
        let changes = keys.into_iter().map(delete).collect();
        self.change(&handle, changes).await
    }
}

/// Bounds the log lines about a broken store, which guests may call as often as they like.
static BROKEN: LogLimit = LogLimit::of_retries();

impl From<keyvalue::Error> for KeyValueError {
    fn from(error: keyvalue::Error) -> Self {
        use keyvalue::Error as StoreError;
        let text = match error {
            StoreError::Limit(text) | StoreError::Invalid(text) => text,
            // The store has logged this for the operator.
            StoreError::Unavailable {
                outcome_unknown: false,
                ..
            } => {
                "the key-value store is unavailable and has changed nothing; try again later".into()
            }
            StoreError::Unavailable {
                outcome_unknown: true,
                ..
            } => "the key-value store has failed, and may have made this change or not; read it \
                  again later"
                .into(),
            error @ (StoreError::Corrupt(_) | StoreError::Misconfigured(_)) => {
                if let Some(left_out) = BROKEN.permit() {
                    tracing::error!(left_out, "{error}");
                }
                "the key-value store is broken; the node's log says why, for its operator".into()
            }
        };
        KeyValueError::Returned(Error::Other(text))
    }
}

impl From<ResourceTableError> for KeyValueError {
    fn from(error: ResourceTableError) -> Self {
        match error {
            ResourceTableError::Full => {
                let text = "too many open stores; drop those that are no longer used";
                KeyValueError::Returned(Error::Other(text.into()))
            }
            error => KeyValueError::Trap(error.into()),
        }
    }
}
