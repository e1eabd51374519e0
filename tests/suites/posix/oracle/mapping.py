"""Maps files for the oracle: one request a line on standard input, one answer a line.

A request is `PATH OFFSET LENGTH BYTE shared|private|reader`, the first word in hexadecimal. The answer
is what the mapping and a read of the file show at the end, as check sums, or the errno.
"""

import mmap
import os
import sys
import zlib


def mapped(path, at, length, byte, how):
    descriptor = os.open(path, os.O_RDWR)
    try:
        size = os.fstat(descriptor).st_size
        if size == 0:
            return "empty"
        at = min(at, size - 1)
        data = bytes([byte]) * min(length, size - at)
        if how == "private":
            view = mmap.mmap(descriptor, size, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE)
        elif how == "shared":
            view = mmap.mmap(descriptor, size, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
        else:
            view = mmap.mmap(descriptor, size, mmap.MAP_SHARED, mmap.PROT_READ)
        with view:
            before = zlib.crc32(view)
            if how == "reader":
                os.pwrite(descriptor, data, at)
            else:
                view[at : at + len(data)] = data
            after = zlib.crc32(view)
            read = zlib.crc32(os.pread(descriptor, size, 0))
            if how == "shared":
                view.flush()
        return f"{size} {before} {after} {read}"
    finally:
        os.close(descriptor)


for line in sys.stdin:
    path, at, length, byte, how = line.split()
    try:
        answer = mapped(bytes.fromhex(path), int(at), int(length), int(byte), how)
    except OSError as error:
        answer = f"errno {error.errno}"
    print(answer, flush=True)
