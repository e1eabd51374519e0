//! A writable layer that lasts as long as the test: data files without names, no log.

use std::{collections::HashMap, fs::File, io, sync::Arc, sync::Mutex};

use pellicle_store::Ino;
use pellicle_upper::{LogPosition, Record, Recovery, Space, Upper, UpperError};

#[derive(Default)]
pub(crate) struct MemoryUpper {
    data: Mutex<HashMap<u64, Arc<File>>>,
}

impl Upper for MemoryUpper {
    fn replay(&self, _apply: &mut dyn FnMut(Record<'_>)) -> Result<Recovery, UpperError> {
        Ok(Recovery {
            clean: true,
            ..Recovery::default()
        })
    }

    fn commit(&self, _batch: &[Record<'_>]) -> Result<(), UpperError> {
        Ok(())
    }

    fn data(&self, ino: Ino) -> Result<Arc<File>, UpperError> {
        self.data
            .lock()
            .unwrap()
            .get(&ino.0)
            .cloned()
            .ok_or_else(|| UpperError::Io {
                doing: "open",
                path: format!("data/{ino}").into(),
                source: io::ErrorKind::NotFound.into(),
            })
    }

    fn create_data(&self, ino: Ino) -> Result<Arc<File>, UpperError> {
        let file = Arc::new(tempfile::tempfile().unwrap());
        self.data.lock().unwrap().insert(ino.0, file.clone());
        Ok(file)
    }

    fn note_copied(&self, _ino: Ino) {}

    fn remove_data(&self, ino: Ino) {
        self.data.lock().unwrap().remove(&ino.0);
    }

    fn sync_file(&self, _ino: Ino) -> Result<(), UpperError> {
        Ok(())
    }

    fn sync_all(&self) -> Result<(), UpperError> {
        Ok(())
    }

    fn wants_compaction(&self, _live_records: u64) -> bool {
        false
    }

    fn position(&self) -> LogPosition {
        LogPosition::default()
    }

    fn compact(
        &self,
        _since: LogPosition,
        _snapshot: &mut dyn FnMut(&mut dyn FnMut(Record<'_>)),
    ) -> Result<(), UpperError> {
        Ok(())
    }

    fn space(&self) -> Result<Space, UpperError> {
        Ok(Space {
            block_size: 4096,
            total: 1 << 40,
            free: 1 << 39,
            available: 1 << 38,
            files: 1 << 20,
            files_free: 1 << 19,
        })
    }
}
