def write_page(path, header, records): raise NotImplementedError
