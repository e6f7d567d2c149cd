def write(rows): pass
