/*
 * pyjiva.native: what every command does that costs many instructions when it goes through the general calls
 * of Python, as one call each.  It is there in compiled builds alone.
 *
 * Each function has a twin in Python, which stands where it is used and is what it means:
 *
 *     sums_of, first_bad              pyjiva.block_sums
 *     bytes_at                        pyjiva.buffers
 *     header_of_words                 pyjiva.iscsi.pdu
 *     read_nowait, read_nowait_into   pyjiva.sparse.file_sys
 *     frame_header, frame_fields      pyjiva.replication.frame
 *
 * No state but two tables that are made when the module is loaded; all but reads of large ranges hold the
 * interpreter's lock.
 */

#include "functions.h"

/* PyMethodDef has one type for functions, whatever their flags say of the arguments. */
#define FAST(function) #function, (PyCFunction)(void (*)(void))function, METH_FASTCALL

static PyMethodDef methods[] = {
    {"sums_of", sums_of, METH_O, "The checksums of the blocks of a contiguous buffer, one after the other."},
    {FAST(first_bad),
     "first_bad(sums, data): the first block whose checksum is known and another one; -1: none."},
    {FAST(bytes_at),
     "bytes_at(buffer, start, size): a copy of these bytes."},
    {FAST(header_of_words),
     "header_of_words(*words): a basic header segment that begins with nine words of 32 bits, and ends with 0."},
    {FAST(read_nowait),
     "read_nowait(fd, size, offset): what the page cache has there, if it has all of it, else None."},
    {FAST(read_nowait_into),
     "read_nowait_into(fd, buffer, offset): whether the page cache has filled the whole buffer."},
    {FAST(frame_header),
     "frame_header(type, code, request_id, epoch, offset, length, stable, digest, size): a frame's header."},
    {"frame_fields", frame_fields, METH_O,
     "The fields of a frame's header, as frame_header takes them; None if it is none."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    .m_base = PyModuleDef_HEAD_INIT,
    .m_name = "pyjiva.native",
    .m_doc = "Steps of every command, as one call each.",
    .m_size = -1,
    .m_methods = methods,
};

PyMODINIT_FUNC PyInit_native(void)
{
    choose_sums();
    make_crc_table();
    return PyModule_Create(&definition);
}
