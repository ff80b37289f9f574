"""Files of records, as TFDS prepares them: where each record lies, its bytes.

A TFRecord file has no table of contents, so where its records begin is found by
reading the length of each. Of large or remote datasets, input/offsets.py keeps
what was found. Every record is checked against its checksum when it is read.
"""

from collections.abc import Callable, Sequence
import hashlib
import os
import struct
from typing import Any, BinaryIO, NamedTuple

import google_crc32c
import numpy as np
import tensorflow as tf

from big_distill import contracts
from big_distill.input import offsets


class Records(NamedTuple):
  """Records of a split, in order.

  read: number of a record -> its bytes. Raises ValueError for a damaged one.
  read_many: (first, last) -> bytes of the records first ... last - 1, in few
    large pieces.
  name: number of a record -> what to call it in a message.
  fingerprint: as that of a contracts.Source.
  """
  num_records: int
  read: Callable[[int], bytes]
  read_many: Callable[[int, int], list[bytes]]
  name: Callable[[int], str]
  fingerprint: str


def open_file(path: str) -> BinaryIO | tf.io.gfile.GFile:
  """Opens a file that reads what it is asked for: GFile reads 512 kB."""
  remote = '://' in path
  return tf.io.gfile.GFile(path, 'rb') if remote else open(path, 'rb', 0)


def lengths(path: str, size: int) -> np.ndarray:
  """Bytes of each record's payload in a TFRecord of `size` bytes: int64 [n].

  A record is its length (8 bytes), a checksum of that (4), the payload, and a
  checksum of that (4). Raises ValueError if the file ends within a record.
  """
  found, position = [], 0
  with open_file(path) as file:
    while position < size:
      file.seek(position)
      head = file.read(8)
      length = struct.unpack('<Q', head)[0] if len(head) == 8 else size
      if position + length + 16 > size:
        raise ValueError(f'{path} is cut short or damaged at byte {position}. '
                         'Prepare the dataset anew.')
      found.append(length)
      position += length + 16
  return np.asarray(found, np.int64)


def payloads(path: str, start: int, lengths: Sequence[int]) -> list[bytes]:
  """Payloads of records of a TFRecord that lie side by side from byte `start`.

  Raises ValueError if a checksum, the masked CRC-32C, is another.
  """
  with open_file(path) as file:
    file.seek(start)
    content = memoryview(file.read(sum(lengths) + 16 * len(lengths)))
  found, place = [], 12
  for length in lengths:
    payload = bytes(content[place:place + length])
    crc = google_crc32c.value(payload)
    masked = ((crc >> 15 | crc << 17) + 0xa282ead8) & 0xffffffff
    if content[place + length:place + length + 4] != struct.pack('<I', masked):
      raise ValueError('its checksum differs')
    found.append(payload)
    place += length + 16
  return found


def tfrecords(parts: Sequence[Any]) -> Records:
  """Records of TFRecord files; `parts` are TFDS's FileInstructions.

  Raises ValueError for a file that is cut short.
  """
  files = [part.filename for part in parts]
  found = offsets.find(files, lengths)
  _check_counts(parts, map(len, found))
  starts = [np.cumsum(each + 16) - each - 16 for each in found]
  which = np.repeat(np.arange(len(files)), [part.take for part in parts])
  start, length = (np.concatenate([np.zeros(0, np.int64), *(
      each[part.skip:part.skip + part.take]
      for each, part in zip(values, parts))]) for values in (starts, found))

  def read_many(first, last):
    found = []
    while first < last:
      end = first + 1
      while end < last and which[end] == which[first] and (
          start[end] == start[end - 1] + length[end - 1] + 16):
        end += 1
      found += payloads(files[which[first]], int(start[first]),
                        length[first:end].tolist())
      first = end
    return found

  return Records(
      len(which), lambda i: read_many(i, i + 1)[0], read_many,
      lambda i: f'{os.path.basename(files[which[i]])}, record at byte '
                f'{start[i]}',
      contracts.fingerprint(
          [os.path.basename(file) for file in files],
          hashlib.sha256(length.astype('<i8').tobytes()).hexdigest()))


def array_records(parts: Sequence[Any]) -> Records:
  """Records of ArrayRecord files, which know where each lies.

  Raises ValueError for a file that cannot be opened or is of another length.
  """
  try:
    from array_record.python import array_record_data_source
    from array_record.python import array_record_module
  except ImportError as error:
    raise ValueError('A dataset prepared as array_record needs a package: pip '
                     'install array_record.') from error

  def count(part):
    try:
      reader = array_record_module.ArrayRecordReader(part.filename)
      found = reader.num_records()
      reader.close()
    except (RuntimeError, ValueError) as error:
      reason = str(error).split('\n')[0]
      raise ValueError(f'{part.filename} cannot be read as an ArrayRecord '
                       f'({reason}). Prepare the dataset anew.') from error
    return found

  _check_counts(parts, offsets.together(count, parts))
  files = [part.filename for part in parts]
  takes = [part.take for part in parts]
  which = np.repeat(np.arange(len(files)), takes)
  place = np.concatenate([np.zeros(0, np.int64), *(
      np.arange(part.skip, part.skip + part.take) for part in parts)])
  source: Any = (array_record_data_source.ArrayRecordDataSource(parts)
                 if files else [])
  sizes = offsets.together(lambda file: tf.io.gfile.stat(file).length, files)
  return Records(
      len(which), lambda i: source[int(i)],
      lambda first, last: source.__getitems__(range(first, last)),
      lambda i: f'{os.path.basename(files[which[i]])}, record {place[i]}',
      contracts.fingerprint(
          [[os.path.basename(part.filename), part.skip, part.take, size]
           for part, size in zip(parts, sizes)]))


FORMATS = {'tfrecord': tfrecords, 'array_record': array_records}


def _check_counts(parts, counts):
  """Holds numbers of records against dataset_info.json, file by file."""
  for part, count in zip(parts, counts):
    if count != part.examples_in_shard:
      raise ValueError(
          f'{part.filename} has {count} records, dataset_info.json says '
          f'{part.examples_in_shard}: it is cut short or of another version. '
          'Prepare the dataset anew.')
