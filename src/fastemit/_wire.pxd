"""The wire format: the text around the events of a request, and the text after each of them."""

from fastemit._segment cimport Format


cdef extern from * nogil:
    """
    #define FASTEMIT_SCHEMA "iglu:com.snowplowanalytics.snowplow/payload_data/jsonschema/1-0-4"
    #define FASTEMIT_DATA "\\"data\\":["
    #define FASTEMIT_PREFIX "{\\"schema\\":\\"" FASTEMIT_SCHEMA "\\"," FASTEMIT_DATA
    #define FASTEMIT_NO_TIME "0000000000000"
    #define FASTEMIT_JSON_STM "\\"stm\\":\\"" FASTEMIT_NO_TIME "\\"}"
    #define FASTEMIT_JSON_TAIL "," FASTEMIT_JSON_STM ","
    #define FASTEMIT_QUERY_STM "stm=" FASTEMIT_NO_TIME
    #define FASTEMIT_QUERY_TAIL "&" FASTEMIT_QUERY_STM "&"
    """
    const char* JSON_SCHEMA "FASTEMIT_SCHEMA"
    const char* JSON_DATA "FASTEMIT_DATA"
    const char* NO_STM_TIME "FASTEMIT_NO_TIME"
    const char* JSON_STM "FASTEMIT_JSON_STM"
    const char* QUERY_STM "FASTEMIT_QUERY_STM"
    const char* JSON_PREFIX "FASTEMIT_PREFIX"
    const size_t JSON_PREFIX_LEN "(sizeof(FASTEMIT_PREFIX) - 1)"
    const char* JSON_TAIL "FASTEMIT_JSON_TAIL"
    const size_t JSON_TAIL_LEN "(sizeof(FASTEMIT_JSON_TAIL) - 1)"
    const char* QUERY_TAIL "FASTEMIT_QUERY_TAIL"
    const size_t QUERY_TAIL_LEN "(sizeof(FASTEMIT_QUERY_TAIL) - 1)"


cdef inline Format json_format() noexcept:
    """A POST: JSON objects in the self-describing envelope, each with an `stm` before its brace."""
    return Format(
        prefix=JSON_PREFIX, prefix_len=JSON_PREFIX_LEN, tail=JSON_TAIL, tail_len=JSON_TAIL_LEN,
        chop=1, empty_len=2, stm_from_end=16, enclosed=True,
    )


cdef inline Format query_format() noexcept:
    """A GET: query strings, each with an `stm` at its end."""
    return Format(
        prefix=b"", prefix_len=0, tail=QUERY_TAIL, tail_len=QUERY_TAIL_LEN,
        chop=0, empty_len=0, stm_from_end=14, enclosed=False,
    )
