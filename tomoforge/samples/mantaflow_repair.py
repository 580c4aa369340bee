"""Makes Mantaflow work in Blender's Python wheels.

``bpy`` registers the types of its ``manta`` module before it links them to their base classes, so a
derived type lacks what it should inherit: ``'LevelsetGrid' object has no attribute 'setConst'``,
the bake stops, and the "liquid" comes back as the domain's own cube. Here the missing methods and
attributes are added to each derived type. Types of C extensions cannot be changed from Python, so
this goes through the C API, with the object layout of CPython 3.11; each pointer is checked against
the name it should lead to before it is used.

A Blender executable does not need this; ``bpy`` wheels 4.2, 4.5 and 5.0 do.
"""

import ctypes
import gc
import sys
import types
from typing import Any

from tomoforge.errors import MissingComponentError

# Derived type -> base, as in Mantaflow's own sources (source/python/registry.cpp links them at
# start-up).
_BASES = {
    "Solver": "PbClass",
    "GridBase": "PbClass",
    "IntGrid": "GridBase",
    "RealGrid": "GridBase",
    "VecGrid": "GridBase",
    "MACGrid": "VecGrid",
    "FlagGrid": "IntGrid",
    "LevelsetGrid": "RealGrid",
    "Grid4dBase": "PbClass",
    "Grid4Int": "Grid4dBase",
    "Grid4Real": "Grid4dBase",
    "Grid4Vec3": "Grid4dBase",
    "Grid4Vec4": "Grid4dBase",
    "ParticleBase": "PbClass",
    "ParticleSystem_BasicParticleData": "ParticleBase",
    "ParticleSystem_ParticleIndexData": "ParticleBase",
    "ParticleSystem_TurbulenceParticleData": "ParticleBase",
    "ParticleSystem_VortexParticleData": "ParticleBase",
    "BasicParticleSystem": "ParticleSystem_BasicParticleData",
    "ParticleIndexSystem": "ParticleSystem_ParticleIndexData",
    "TurbulenceParticleSystem": "ParticleSystem_TurbulenceParticleData",
    "VortexParticleSystem": "ParticleSystem_VortexParticleData",
    "ParticleDataBase": "PbClass",
    "PdataInt": "ParticleDataBase",
    "PdataReal": "ParticleDataBase",
    "PdataVec3": "ParticleDataBase",
    "Mesh": "PbClass",
    "MeshDataBase": "PbClass",
    "MdataInt": "MeshDataBase",
    "MdataReal": "MeshDataBase",
    "MdataVec3": "MeshDataBase",
    "VortexSheetMesh": "Mesh",
    "WaveletNoiseField": "PbClass",
    "NoiseField": "PbClass",
    "Shape": "PbClass",
    "NullShape": "Shape",
    "Box": "Shape",
    "Sphere": "Shape",
    "Cylinder": "Shape",
    "Slope": "Shape",
    "MovingObstacle": "PbClass",
    "Timings": "PbClass",
}

# PyDescrObject: the object's header, d_type, d_name, d_qualname; then the pointer to the
# definition.
_DEFINITION_OFFSET = object.__basicsize__ + 3 * ctypes.sizeof(ctypes.c_void_p)


def apply() -> int:
    """Give each derived Mantaflow type what it should inherit; the number of descriptors added.

    Call it once, right after ``import bpy``; a second call adds nothing and returns 0.

    Raises
    ------
    MissingComponentError
        where there is no ``manta`` module (bpy is not imported), another Python than CPython 3.11,
        or a layout of descriptors that is not the expected one.
    """
    if sys.implementation.name != "cpython" or sys.version_info[:2] != (3, 11):
        raise MissingComponentError(
            "the Mantaflow repair knows the object layout of CPython 3.11 only, this is "
            f"{sys.implementation.name} {sys.version_info[0]}.{sys.version_info[1]}"
        )
    try:
        import manta  # type: ignore[import-not-found]
    except ImportError as error:
        raise MissingComponentError("Mantaflow appears with bpy: import bpy first") from error
    added = sum(_inherit(manta, name) for name in _BASES)
    missing = [
        name
        for name, method in (("LevelsetGrid", "setConst"), ("MACGrid", "copyFrom"))
        if not hasattr(getattr(manta, name, None), method)
    ]
    if missing:
        raise MissingComponentError(
            f"Mantaflow's {', '.join(missing)} still lack inherited methods; is this another bpy than 5.0.1?"
        )
    return added


def _inherit(manta: types.ModuleType, name: str) -> int:
    """Copy to type ``name`` the descriptors of all its bases that it does not have."""
    derived = getattr(manta, name, None)
    if derived is None:
        return 0
    # The dictionary behind the read-only view of a built-in type.
    namespace = gc.get_referents(derived.__dict__)[0]
    added = 0
    base_name = _BASES.get(name)
    while base_name is not None:
        base = getattr(manta, base_name, None)
        for key, descriptor in list(vars(base).items()) if base is not None else []:
            if key.startswith("__") or key in namespace:
                continue
            made = _rebound(derived, key, descriptor)
            if made is not None:
                namespace[key] = made
                added += 1
        base_name = _BASES.get(base_name)
    modified = ctypes.pythonapi.PyType_Modified
    modified.argtypes, modified.restype = [ctypes.py_object], None
    modified(derived)
    return added


def _rebound(derived: type, key: str, descriptor: Any) -> Any:
    """The base's C method or attribute as a descriptor of the derived type; None for anything
    else."""
    if isinstance(descriptor, types.MethodDescriptorType):
        make = ctypes.pythonapi.PyDescr_NewMethod
    elif isinstance(descriptor, types.GetSetDescriptorType):
        make = ctypes.pythonapi.PyDescr_NewGetSet
    else:
        return None
    definition = ctypes.c_void_p.from_address(id(descriptor) + _DEFINITION_OFFSET).value
    # PyMethodDef and PyGetSetDef both begin with the name, so a wrong layout shows here.
    found = ctypes.c_char_p.from_address(definition).value if definition else None
    if found != key.encode():
        raise MissingComponentError(
            f"the definition of {derived.__name__}.{key} is not where CPython 3.11 keeps it "
            f"(found {found!r}); is this another bpy than 5.0.1?"
        )
    make.argtypes, make.restype = [ctypes.py_object, ctypes.c_void_p], ctypes.py_object
    return make(derived, definition)
