"""Files of records, as TFDS prepares them: where each record lies."""

import struct
from typing import BinaryIO

import numpy as np
import tensorflow as tf


def open_file(path: str) -> BinaryIO | tf.io.gfile.GFile:
  """Opens a file that reads what it is asked for: GFile reads 512 kB."""
  remote = '://' in path
  return tf.io.gfile.GFile(path, 'rb') if remote else open(path, 'rb', 0)


def spans(path: str) -> np.ndarray:
  """Start and length of each record's payload in a TFRecord: int64 [n, 2].

  A record is its length (8 bytes), a checksum (4), the payload, another (4).
  """
  found, position, size = [], 0, tf.io.gfile.stat(path).length
  with open_file(path) as file:
    while position < size:
      file.seek(position)
      head = file.read(8)
      length = struct.unpack('<Q', head)[0] if len(head) == 8 else size
      if position + length + 16 > size:
        raise ValueError(f'{path} is cut short or damaged at byte {position}. '
                         'Prepare the dataset anew.')
      found.append((position + 12, length))
      position += length + 16
  return np.asarray(found, np.int64).reshape(-1, 2)
