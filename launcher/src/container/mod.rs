//! Containers: namespaces, the supervisor, and the state of each in the store.
