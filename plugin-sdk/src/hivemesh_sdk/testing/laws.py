"""The laws of sources and reducers, checked on the plain functions, without any process.

collect(parse, options).resumes_anywhere()
check_merge(Volumes, records)
"""

import msgspec

_EXACT = msgspec.json.Encoder(order="deterministic")
