"""Unpacks a folder of a wheel into a folder that does not exist yet.

Usage: unpack.py WHEEL INSIDE FOLDER

Files whose name begins with INSIDE (which ends with a slash) are kept, without that prefix. Prints `done total` (bytes)
now and then, for whoever shows the progress.
"""

import os
import shutil
import sys
import zipfile

REPORT_EVERY_BYTES = 8 << 20


def main(wheel, inside, folder):
    with zipfile.ZipFile(wheel) as archive:
        members = []
        for info in archive.infolist():
            if not info.filename.startswith(inside) or info.is_dir():
                continue
            parts = info.filename[len(inside) :].split("/")
            if ".." in parts or "" in parts:
                sys.exit(f"{info.filename}: a name that leads out of the folder")
            members.append((info, os.path.join(folder, *parts)))
        total = sum(info.file_size for info, _ in members)
        done = reported = 0
        for info, path in members:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with archive.open(info) as source, open(path, "wb") as target:
                shutil.copyfileobj(source, target)
            # A wheel keeps Unix permissions in the upper half of the attributes; scripts may lack them.
            program = info.external_attr >> 16 & 0o111 or "/scripts/" in info.filename
            os.chmod(path, 0o755 if program else 0o644)
            done += info.file_size
            if done - reported >= REPORT_EVERY_BYTES:
                reported = done
                print(done, total, flush=True)
        print(done, total, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
