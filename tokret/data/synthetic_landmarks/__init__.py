"""Photos of invented buildings, rendered from random numbers alone.

`building_designs` composes a building of `building_parts` (`meshes`), whose walls are
painted by `facades` and `windows_and_doors`; `photo_planning` decides how a photo is
taken, `camera` projects, `rasteriser` draws, `scenery` and `occluders` surround the
building, `photo_effects` adds light, weather and the camera's faults, and
`photo_rendering` combines them; `relevance` labels the photos.
"""
