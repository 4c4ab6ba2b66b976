
/* Copyright (C) the ngx_http_iothub_module authors */

#include "ngx_http_iothub_key_file.h"


#define NGX_HTTP_IOTHUB_KEY_FILE_MAX  65536


static ngx_int_t ngx_http_iothub_key_file_full_name(ngx_conf_t *cf,
    ngx_str_t *name);
static ngx_int_t ngx_http_iothub_key_file_text(ngx_conf_t *cf, ngx_file_t *file,
    ngx_str_t *text);


ngx_int_t
ngx_http_iothub_key_file_read(ngx_conf_t *cf, ngx_str_t *name,
    ngx_str_t *text)
{
    ngx_int_t   rc;
    ngx_file_t  file;

    if (ngx_http_iothub_key_file_full_name(cf, name) != NGX_OK) {
        return NGX_ERROR;
    }

    ngx_memzero(&file, sizeof(ngx_file_t));
    file.name = *name;
    file.log = cf->log;

    file.fd = ngx_open_file(name->data, NGX_FILE_RDONLY, NGX_FILE_OPEN, 0);

    if (file.fd == NGX_INVALID_FILE) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, ngx_errno,
                           ngx_open_file_n " \"%V\" failed", name);
        return NGX_ERROR;
    }

    rc = ngx_http_iothub_key_file_text(cf, &file, text);

    if (ngx_close_file(file.fd) == NGX_FILE_ERROR) {
        ngx_log_error(NGX_LOG_ALERT, cf->log, ngx_errno,
                      ngx_close_file_n " \"%V\" failed", name);
    }

    return rc;
}


/*
 * nginx has two folders for relative names: that of its configuration, for
 * certificates and passwords, and its prefix, for all else.
 */

static ngx_int_t
ngx_http_iothub_key_file_full_name(ngx_conf_t *cf, ngx_str_t *name)
{
    ngx_str_t        other;
    ngx_file_info_t  info;

    other = *name;

    if (ngx_conf_full_name(cf->cycle, name, 1) != NGX_OK
        || ngx_conf_full_name(cf->cycle, &other, 0) != NGX_OK)
    {
        return NGX_ERROR;
    }

    if (ngx_file_info(name->data, &info) == NGX_FILE_ERROR
        && ngx_errno == NGX_ENOENT
        && ngx_file_info(other.data, &info) != NGX_FILE_ERROR)
    {
        *name = other;
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_iothub_key_file_text(ngx_conf_t *cf, ngx_file_t *file, ngx_str_t *text)
{
    off_t    size;
    ssize_t  n;

    if (ngx_fd_info(file->fd, &file->info) == NGX_FILE_ERROR) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, ngx_errno,
                           ngx_fd_info_n " \"%V\" failed", &file->name);
        return NGX_ERROR;
    }

    if (!ngx_is_file(&file->info)) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "\"%V\" is not a regular file", &file->name);
        return NGX_ERROR;
    }

    size = ngx_file_size(&file->info);

    if (size > NGX_HTTP_IOTHUB_KEY_FILE_MAX) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "\"%V\" is too large for a file of keys or "
                           "secrets", &file->name);
        return NGX_ERROR;
    }

#if !(NGX_WIN32)

    if (file->info.st_mode & S_IROTH) {
        ngx_conf_log_error(NGX_LOG_WARN, cf, 0,
                           "\"%V\" may be read by others, it should have "
                           "mode 0600", &file->name);
    }

#endif

    text->data = ngx_pnalloc(cf->temp_pool, size + 1);
    if (text->data == NULL) {
        return NGX_ERROR;
    }

    n = ngx_read_file(file, text->data, (size_t) size, 0);

    if (n == NGX_ERROR) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, ngx_errno,
                           ngx_read_file_n " \"%V\" failed", &file->name);
        return NGX_ERROR;
    }

    text->len = n;

    return NGX_OK;
}


void
ngx_http_iothub_key_file_bad(ngx_conf_t *cf, ngx_str_t *name,
    const char *reason, ngx_uint_t line)
{
    if (line) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0, "\"%V\", line %ui: %s",
                           name, line, reason);
    } else {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0, "\"%V\": %s", name, reason);
    }
}
