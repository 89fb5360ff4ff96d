package main

import "os"

func init() {
	// Nobody passes these lines: the name of the program is not empty.
	if os.Args[0] == "" {
		kept.Add(silent(uint64(len(os.Args)), uint64(os.Getpid())))
	}
}

// silent is never called.
//
//go:noinline
func silent(n, x uint64) uint64 {
	switch n {
	case 0:
		x = x*3 + 0 // silent
	case 1:
		x = x*5 + 1 // silent
	case 2:
		x = x*7 + 2 // silent
	case 3:
		x = x*9 + 3 // silent
	case 4:
		x = x*11 + 4 // silent
	case 5:
		x = x*13 + 5 // silent
	case 6:
		x = x*15 + 6 // silent
	case 7:
		x = x*17 + 7 // silent
	case 8:
		x = x*19 + 8 // silent
	case 9:
		x = x*21 + 9 // silent
	case 10:
		x = x*23 + 10 // silent
	case 11:
		x = x*25 + 11 // silent
	case 12:
		x = x*27 + 12 // silent
	case 13:
		x = x*29 + 13 // silent
	case 14:
		x = x*31 + 14 // silent
	case 15:
		x = x*33 + 15 // silent
	case 16:
		x = x*35 + 16 // silent
	case 17:
		x = x*37 + 17 // silent
	case 18:
		x = x*39 + 18 // silent
	case 19:
		x = x*41 + 19 // silent
	case 20:
		x = x*43 + 20 // silent
	case 21:
		x = x*45 + 21 // silent
	case 22:
		x = x*47 + 22 // silent
	case 23:
		x = x*49 + 23 // silent
	case 24:
		x = x*51 + 24 // silent
	case 25:
		x = x*53 + 25 // silent
	case 26:
		x = x*55 + 26 // silent
	case 27:
		x = x*57 + 27 // silent
	case 28:
		x = x*59 + 28 // silent
	case 29:
		x = x*61 + 29 // silent
	case 30:
		x = x*63 + 30 // silent
	case 31:
		x = x*65 + 31 // silent
	case 32:
		x = x*67 + 32 // silent
	case 33:
		x = x*69 + 33 // silent
	case 34:
		x = x*71 + 34 // silent
	case 35:
		x = x*73 + 35 // silent
	case 36:
		x = x*75 + 36 // silent
	case 37:
		x = x*77 + 37 // silent
	case 38:
		x = x*79 + 38 // silent
	case 39:
		x = x*81 + 39 // silent
	case 40:
		x = x*83 + 40 // silent
	case 41:
		x = x*85 + 41 // silent
	case 42:
		x = x*87 + 42 // silent
	case 43:
		x = x*89 + 43 // silent
	case 44:
		x = x*91 + 44 // silent
	case 45:
		x = x*93 + 45 // silent
	case 46:
		x = x*95 + 46 // silent
	case 47:
		x = x*97 + 47 // silent
	case 48:
		x = x*99 + 48 // silent
	case 49:
		x = x*101 + 49 // silent
	case 50:
		x = x*103 + 50 // silent
	case 51:
		x = x*105 + 51 // silent
	case 52:
		x = x*107 + 52 // silent
	case 53:
		x = x*109 + 53 // silent
	case 54:
		x = x*111 + 54 // silent
	case 55:
		x = x*113 + 55 // silent
	case 56:
		x = x*115 + 56 // silent
	case 57:
		x = x*117 + 57 // silent
	case 58:
		x = x*119 + 58 // silent
	case 59:
		x = x*121 + 59 // silent
	case 60:
		x = x*123 + 60 // silent
	case 61:
		x = x*125 + 61 // silent
	case 62:
		x = x*127 + 62 // silent
	case 63:
		x = x*129 + 63 // silent
	case 64:
		x = x*131 + 64 // silent
	case 65:
		x = x*133 + 65 // silent
	case 66:
		x = x*135 + 66 // silent
	case 67:
		x = x*137 + 67 // silent
	case 68:
		x = x*139 + 68 // silent
	case 69:
		x = x*141 + 69 // silent
	case 70:
		x = x*143 + 70 // silent
	case 71:
		x = x*145 + 71 // silent
	case 72:
		x = x*147 + 72 // silent
	case 73:
		x = x*149 + 73 // silent
	case 74:
		x = x*151 + 74 // silent
	case 75:
		x = x*153 + 75 // silent
	case 76:
		x = x*155 + 76 // silent
	case 77:
		x = x*157 + 77 // silent
	case 78:
		x = x*159 + 78 // silent
	case 79:
		x = x*161 + 79 // silent
	case 80:
		x = x*163 + 80 // silent
	case 81:
		x = x*165 + 81 // silent
	case 82:
		x = x*167 + 82 // silent
	case 83:
		x = x*169 + 83 // silent
	case 84:
		x = x*171 + 84 // silent
	case 85:
		x = x*173 + 85 // silent
	case 86:
		x = x*175 + 86 // silent
	case 87:
		x = x*177 + 87 // silent
	case 88:
		x = x*179 + 88 // silent
	case 89:
		x = x*181 + 89 // silent
	case 90:
		x = x*183 + 90 // silent
	case 91:
		x = x*185 + 91 // silent
	case 92:
		x = x*187 + 92 // silent
	case 93:
		x = x*189 + 93 // silent
	case 94:
		x = x*191 + 94 // silent
	case 95:
		x = x*193 + 95 // silent
	case 96:
		x = x*195 + 96 // silent
	case 97:
		x = x*197 + 97 // silent
	case 98:
		x = x*199 + 98 // silent
	case 99:
		x = x*201 + 99 // silent
	}
	return x
}
