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

static PyMethodDef methods[] = {
    {"sums_of", sums_of, METH_O, "The checksums of the blocks of a contiguous buffer, one after the other."},
    {"first_bad", (PyCFunction)(void (*)(void))first_bad, METH_FASTCALL,
     "first_bad(sums, data): the first block whose checksum is known and another one; -1: none."},
    {"bytes_at", (PyCFunction)(void (*)(void))bytes_at, METH_FASTCALL,
     "bytes_at(buffer, start, size): a copy of these bytes."},
    {"header_of_words", (PyCFunction)(void (*)(void))header_of_words, METH_FASTCALL,
     "header_of_words(*words): a basic header segment that begins with nine words of 32 bits, and ends with 0."},
    {"read_nowait", (PyCFunction)(void (*)(void))read_nowait, METH_FASTCALL,
     "read_nowait(fd, size, offset): what the page cache has there, if it has all of it, else None."},
    {"read_nowait_into", (PyCFunction)(void (*)(void))read_nowait_into, METH_FASTCALL,
     "read_nowait_into(fd, buffer, offset): whether the page cache has filled the whole buffer."},
    {"frame_header", (PyCFunction)(void (*)(void))frame_header, METH_FASTCALL,
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
