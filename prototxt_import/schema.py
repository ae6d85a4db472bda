"""Caffe's messages as protobuf classes, built at run time in a descriptor pool of their own.

Generated `_pb2` modules are bound to the protobuf release that generated them, and a second
Caffe schema in the default pool would clash. Neither happens here, so protobuf 4 to 7 all work.
"""

from __future__ import annotations

import functools

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import Message

from prototxt_import.schema_fields import ENUMS, MESSAGES

PACKAGE = "caffe"
_Field = descriptor_pb2.FieldDescriptorProto
_SCALARS = {
    "s": _Field.TYPE_STRING,
    "f": _Field.TYPE_FLOAT,
    "d": _Field.TYPE_DOUBLE,
    "i": _Field.TYPE_INT32,
    "l": _Field.TYPE_INT64,
    "u": _Field.TYPE_UINT32,
    "b": _Field.TYPE_BOOL,
}


def new_message(name: str) -> Message:
    """Return an empty message of Caffe's schema, e.g. `new_message("NetParameter")`."""
    return _message_class(name)()


@functools.cache
def _message_class(name: str) -> type[Message]:
    descriptor = _pool().FindMessageTypeByName(f"{PACKAGE}.{name}")
    if hasattr(message_factory, "GetMessageClass"):
        return message_factory.GetMessageClass(descriptor)
    return message_factory.MessageFactory(_pool()).GetPrototype(descriptor)  # protobuf < 4.22


@functools.cache
def _pool() -> descriptor_pool.DescriptorPool:
    file = descriptor_pb2.FileDescriptorProto(
        name="prototxt_import/caffe.proto", package=PACKAGE, syntax="proto2"
    )
    for name, fields in MESSAGES.items():
        message = file.message_type.add(name=name)
        for entry in fields.split(", "):
            _add_field(message, entry)
    messages = {message.name: message for message in file.message_type}
    for full_name, values in ENUMS.items():
        parent, _, name = full_name.rpartition(".")
        enum = (messages[parent] if parent else file).enum_type.add(name=name)
        for value in values.split():
            value_name, _, number = value.partition("=")
            enum.value.add(name=value_name, number=int(number))
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return pool


def _add_field(message: descriptor_pb2.DescriptorProto, entry: str) -> None:
    number, name, kind = entry.split(" ")
    kind, has_default, default = kind.partition("=")
    field = message.field.add(name=name, number=int(number), label=_Field.LABEL_OPTIONAL)
    if kind[-1] in "*+":
        field.label = _Field.LABEL_REPEATED
        field.options.packed = kind[-1] == "+"
        kind = kind[:-1]
    if kind in _SCALARS:
        field.type = _SCALARS[kind]
    elif kind.startswith("@"):
        field.type = _Field.TYPE_ENUM
        field.type_name = f".{PACKAGE}.{kind[1:]}"
    else:
        field.type = _Field.TYPE_MESSAGE
        field.type_name = f".{PACKAGE}.{kind}"
    if has_default:
        field.default_value = default
