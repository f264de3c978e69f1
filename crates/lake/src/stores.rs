//! Object stores by their address, for processes that read a lake's files without opening the lake.

use std::sync::Arc;

use datafusion::common::{DataFusionError, Result};
use datafusion::execution::object_store::{DefaultObjectStoreRegistry, ObjectStoreRegistry};
use object_store::ObjectStore;
use url::Url;

use crate::storage::environment;

/// Opens a store when it is first asked for, with credentials and region from this process's environment. Files of this
/// machine are read as they are.
pub fn object_stores() -> Arc<dyn ObjectStoreRegistry> {
    Arc::new(Stores(DefaultObjectStoreRegistry::new()))
}

#[derive(Debug)]
struct Stores(DefaultObjectStoreRegistry);

impl ObjectStoreRegistry for Stores {
    fn register_store(&self, url: &Url, store: Arc<dyn ObjectStore>) -> Option<Arc<dyn ObjectStore>> {
        self.0.register_store(url, store)
    }

    fn deregister_store(&self, url: &Url) -> Result<Arc<dyn ObjectStore>> {
        self.0.deregister_store(url)
    }

    fn get_store(&self, url: &Url) -> Result<Arc<dyn ObjectStore>> {
        if let Ok(store) = self.0.get_store(url) {
            return Ok(store);
        }
        let (store, _) = object_store::parse_url_opts(url, environment())
            .map_err(|error| DataFusionError::ObjectStore(Box::new(error)))?;
        let store: Arc<dyn ObjectStore> = Arc::from(store);
        self.0.register_store(url, Arc::clone(&store));
        Ok(store)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stores_are_opened_once() {
        let stores = object_stores();
        let url = Url::parse("s3://city").unwrap();
        let one = stores.get_store(&url).unwrap();
        assert!(Arc::ptr_eq(&one, &stores.get_store(&url).unwrap()));
        assert!(stores.get_store(&Url::parse("file:///").unwrap()).is_ok());
        assert!(stores.get_store(&Url::parse("gopher://city").unwrap()).is_err());
    }
}
